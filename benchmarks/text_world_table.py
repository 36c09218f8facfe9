"""The table of `text_world.py`, from its numbers."""

from __future__ import annotations

from typing import Any

__all__ = ["COUNTED", "table"]

COUNTED = ("pairwise", "pointwise", "listwise")
PENALTY = "a penalty for other objectives to be added to: none, and without gradient, where the policy is the reference"
SCORER = "trains a scorer, a head beside the decoder, not what the decoder answers"
FOLLOWER = "follows the gradient of a scorer; here that is a head of random weights which is trained along"
NOTES = {
    "alignprop": FOLLOWER,
    "bradley_terry": SCORER,
    "bradley_terry_ties": SCORER,
    "chosen_floor": PENALTY,
    "discopop": "where policy and reference agree, its loss rises with the margin: its slope over beta times margin is"
    " (1 - ln 2) / (4 tau) - 3/4 there, +0.78 at its tau of 0.05, so that it begins by unlearning the chosen answers",
    "draft": FOLLOWER,
    "gpm": SCORER,
    "kl_penalty": PENALTY,
    "log_ratio_penalty": PENALTY,
    "online_kl": PENALTY,
    "refl": FOLLOWER,
    "reward_plackett_luce": SCORER,
}
"""Why an objective does not win, where the formula says so."""


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _curve(values: list[float]) -> str:
    """Return five means of a fifth of the updates each, the first value before them."""
    if not values:
        return "-"
    size = max(1, len(values) // 5)
    means = [sum(part) / len(part) for part in (values[k : k + size] for k in range(0, 5 * size, size)) if part]
    return " ".join(f"{value:.3g}" for value in (values[0], *means))


def _win(result: dict[str, Any]) -> str:
    win = result.get("win")
    return f"{_percent(win['rate'])} [{_percent(win['low'])}, {_percent(win['high'])}]" if win else result["error"]


def _row(name: str, about: dict[str, str], result: dict[str, Any]) -> str:
    margins = result["curve"]["rewards/margins"]
    return (
        f"| `{name}` | {about['kind']} | {about['evidence']} | {_win(result)} |"
        f" {_percent(result['right']) if 'right' in result else '-'} | {_curve(result['curve']['loss'])} |"
        f" {f'{margins[-1]:.3g}' if margins else '-'} |"
    )


def _rises(result: dict[str, Any]) -> bool:
    return "win" in result and result["win"]["low"] > 0.5


def table(numbers: dict[str, Any]) -> str:
    """Return the page's body: counts, what was the same for all, a row each, the failures, and what was left out."""
    budget, about, results = numbers["budget"], numbers["about"], numbers["objectives"]
    counted = [name for name in results if about[name]["kind"] in COUNTED]
    risen = [name for name in counted if _rises(results[name][0])]
    seconds = sum(result["seconds"] for runs in results.values() for result in runs)
    cpu = sum(result["cpu_seconds"] for runs in results.values() for result in runs)
    lines = [
        f"**{len(risen)} of {len(counted)}** pairwise, pointwise and listwise objectives"
        f" ({_percent(len(risen) / max(1, len(counted)))}) raise the win rate over the start with the 95 % interval"
        f" above 50 %. All runs together: {seconds / 60:.0f} minutes, {cpu / 60:.0f} minutes of CPU, in one process"
        " of one thread on shared cores.",
        "",
        f"{budget['prompts']} instructions with {budget['answers']} answers each; {budget['steps']} updates of"
        f" {budget['batch_size']} pairs, labelled answers or lists; learning rate {budget['learning_rate']:g}; judged"
        f" on {budget['held_out']} held-out instructions with {budget['draws']} draws each, of which the start answers"
        f" {_percent(numbers['start']['right'])} right. A tie counts one half; intervals are bootstrapped over"
        " instructions.",
        "",
        "| objective | kind | evidence | win rate over the start | right | loss: first, then by fifths | last margin |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(name, about[name], results[name][0]) for name in results]
    lines += ["", "## Facts that hold, in % of the answers", ""]
    names = list(numbers["start"]["facts"])
    lines += [f"| objective | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    shares = {"(the start)": numbers["start"]} | {f"`{name}`": runs[0] for name, runs in results.items()}
    for name, told in shares.items():
        if "facts" in told:
            cells = [f"{100 * told['facts'][fact]:.1f}" for fact in names]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Not above one half, and the same run at other learning rates", ""]
    failed = [name for name in results if not _rises(results[name][0])]
    if failed:
        lines += [
            "| objective | learning rate | win rate | right | loss | margin |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
    for name in failed:
        for result in results[name]:
            curve = result["curve"]
            right = _percent(result["right"]) if "right" in result else "-"
            lines.append(
                f"| `{name}` | {result['learning_rate']:g} | {_win(result)} | {right} | {_curve(curve['loss'])} |"
                f" {_curve(curve['rewards/margins'])} |"
            )
    lines += [
        "" if failed else "None.",
        *(f"- `{name}`: {NOTES[name]}." for name in failed if name in NOTES),
        "",
        "## Not defined for text or for these data",
        "",
    ]
    lines += [f"- `{name}` ({about[name]['kind']}): {why}" for name, why in sorted(numbers["refused"].items())]
    return "\n".join(lines) + "\n"
