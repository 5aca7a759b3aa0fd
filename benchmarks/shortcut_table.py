"""The tables of ``SHORTCUTS.md``, from the lines of ``shortcuts.jsonl``; the words around them stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.shortcut_detection import FALSE_ALARMS, Pairs, auroc_over_pairs, detection, pairs
from seglens.evaluate.intervals import Interval
from seglens.judge.agreement import CHEAT, DROP, HONEST, STILL, invalid_because
from seglens.judge.causal import Effect

PAGE = Path(__file__).parent / "SHORTCUTS.md"
BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"

GOOD = 0.95
"""An AUROC of at least this counts as detection, where the interval's lower end is above one half."""

CONTROL = "U against C"


def write(
    lines: Sequence[dict[str, Any]], rows: Mapping[str, Any], parts: Mapping[str, Sequence[str]]
) -> None:
    """Put the tables between the two marks of the page."""
    page = PAGE.read_text() if PAGE.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    text = "\n\n".join(
        (
            summary(lines, rows),
            causal(lines, rows),
            details(lines, rows),
            looks(lines, rows),
            missing(lines, rows, parts),
        )
    )
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


def summary(lines: Sequence[dict[str, Any]], rows: Mapping[str, Any]) -> str:
    """One row a method and layer: the AUROC on each set, and what it comes to."""
    sets = _sets(rows)
    found = {data: shares_of(lines, data, "") for data in sets}
    names = list(dict.fromkeys(name for data in sets for name in found[data]))
    results = {
        name: {data: auroc_over_pairs(_pairs(found[data].get(name, []), "S", "U")) for data in sets}
        for name in names
    }
    ordered = sorted(names, key=lambda name: _rank(name, results[name]))
    seeds = {data: _num_valid(lines, data, rows) for data in sets}
    text = [
        "## Which methods show that a model reads the tag",
        "",
        "AUROC of S against U (chance .5) by the tag's share of the positive attribution outside the "
        "regions, mean over pairs of models with its 95 % interval (pairs first, pictures second). *shows "
        f"it*: AUROC at least {GOOD:g} and lower end above .5; *partly*: lower end above .5; *no*: the "
        "interval holds .5; *misleads*: upper end below .5.",
        "",
        "| method | " + " | ".join(f"`{data}` ({seeds[data]})" for data in sets) + " | in words |",
        "|---|" + "---|" * (len(sets) + 1),
    ]
    for name in ordered:
        cells = [
            _spell(results[name][data]) + _fewer(found[data].get(name, []), len(_most(found[data])))
            for data in sets
        ]
        text.append(f"| {name} | {' | '.join(cells)} | {in_words(results[name])} |")
    return "\n".join(text)


def _most(found: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """The seeds of the method that was run on most."""
    return max(found.values(), key=len, default=[])


def _fewer(seeds: Sequence[Any], most: int) -> str:
    """How many pairs a cell is about where others of its column have more."""
    return f", {len(seeds)} pair{'s' * (len(seeds) != 1)}" if 0 < len(seeds) < most else ""


def _rank(name: str, results: Mapping[str, Interval]) -> tuple[int, float]:
    """The causal reference first, nulls last, what wasn't run behind what was, by the worst set."""
    group = 0 if name == "causal reference" else 2 if name.startswith("null") else 1
    known = [found.mean for found in results.values() if found.num]
    return group, -min(known, default=0)


def verdict(found: Interval) -> str:
    """A word for one AUROC, by the rule that stands above the table."""
    if not found.num:
        return "not run"
    if found.low > 0.5:
        return "shows it" if found.mean >= GOOD else "partly"
    return "misleads" if found.high < 0.5 else "no"


def in_words(results: Mapping[str, Interval]) -> str:
    """The verdicts of all sets, said once where those that were run agree."""
    words = [verdict(found) for found in results.values() if found.num]
    if not words:
        return "not run"
    if len(set(words)) > 1:
        return ", ".join(f"{word} on {words.count(word)}" for word in dict.fromkeys(words))
    return f"**{words[0]}**" + ("" if len(words) == len(results) else f" on {len(words)} of {len(results)}")


def causal(lines: Sequence[dict[str, Any]], rows: Mapping[str, Any]) -> str:
    """What the tag does to each pair of models, and whether the test is valid."""
    text = [
        "## What the tag does: is the test valid?",
        "",
        "Dice, pooled over the 96 test pictures: S and U each on pictures with tags placed as in its own "
        "training, then S on pictures with independent tags. Drops are shares of the frozen region's mean "
        f"probability. Valid: removing the tag takes more than {DROP:.0%} from S, moving it changes S by "
        f"less than {STILL:.0%}, and neither changes U by {STILL:.0%}. Pairs that are not valid count in no "
        "other table.",
        "",
        "| row | Dice S / U / S on U's | pictures | S: tag removed | S: moved | U: removed | U: moved | "
        "valid |",
        "|---|" + "---|" * 7,
    ]
    tested = {line["row"]: line for line in lines if line["part"] == "causal"}
    against = checked(lines)
    for name in rows:
        if name not in tested:
            models = rows[name].models
            why = f": the models of `{models}` are not valid" if against.get(models) else ""
            text.append(f"| `{name}` |" + " |" * 6 + f" not run{why} |")
            continue
        line = tested[name]
        effects = {model: _effect(values) for model, values in line["causal"].items()}
        drops = {model: _drops(found, line["seed"]) for model, found in effects.items()}
        failures = against[name]
        dice = line["dice"]
        cells = [
            f"`{name}`",
            " / ".join(f"{dice[key]:.2f}" for key in ("S", "U", "S on U") if key in dice),
            f"{line['num']} of {line['num_tagged']}, moved {int(effects['S'].complete.sum())}",
            *(_percent(drops[model][place]) for model in ("S", "U") for place in (0, 1)),
            "yes" if not failures else f"**no**: {'; '.join(failures)}",
        ]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def details(lines: Sequence[dict[str, Any]], rows: Mapping[str, Any]) -> str:
    """For each set every method with shares, detection at the stated rate, and the control."""
    text = ["## Every method on every set"]
    text += [
        "",
        "*share*: mean share of the positive attribution outside the regions that lies on the tag, in S, U "
        f"and C, and of an even map. *found*: pictures of S above a threshold that {FALSE_ALARMS:.0%} of the "
        "U models' pictures of the **other** pairs exceed; *false*: pictures of this pair's U above it (two "
        "pairs are needed). "
        f"*{CONTROL}*: AUROC of U against C, which never saw a tag; far from .5 means that the map marks a "
        "tag that it has learned to ignore, or one that is new.",
    ]
    for data in _sets(rows):
        found = shares_of(lines, data, "")
        text += [
            "",
            f"### `{data}`",
            "",
            f"| method | pictures | AUROC S against U | found at {FALSE_ALARMS:.0%} | false | share S | U | "
            f"C | even | {CONTROL} |",
            "|---|" + "---|" * 9,
        ]
        if not found:
            text.append("| all | not run |" + " |" * 8)
        for name, seeds in found.items():
            both = _pairs(seeds, "S", "U")
            caught = detection(both)
            control = auroc_over_pairs(_pairs(seeds, "U", "C"))
            cells = [
                name,
                "+".join(str(len(values)) for values in both.cheat),
                _spell(auroc_over_pairs(both)),
                _percent(caught.rate) if caught.rate.num else "-",
                "-" if not caught.rate.num else f"{caught.false_alarms:.0%}",
                *(_mean(seeds, key) for key in ("S", "U", "C", "even")),
                _spell(control) if control.num else "",
            ]
            text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def looks(lines: Sequence[dict[str, Any]], rows: Mapping[str, Any]) -> str:
    """The AUROC on the specimens for tags of other sizes and contrasts."""
    kinds = list(dict.fromkeys(row.look for row in rows.values() if row.data == "specimens"))
    found = {look: shares_of(lines, "specimens", look) for look in kinds}
    others = [found[look] for look in kinds if look]
    names = list(dict.fromkeys(name for shares in others for name in shares))
    text = [
        "## Tags of other sizes and contrasts (`specimens`)",
        "",
        "The same models, shown tags of another size or opacity than in training (24 pictures a pair). AUROC "
        "of S against U; the number of valid pairs in brackets.",
        "",
        "| method | " + " | ".join(look or "as usual" for look in kinds) + " |",
        "|---|" + "---|" * len(kinds),
    ]
    for name in names or ["all"]:
        cells = []
        for look in kinds:
            both = _pairs(found[look].get(name, []), "S", "U")
            few = f" ({len(both.cheat)})" if both.cheat else ""
            cells.append(_spell(auroc_over_pairs(both)) + few)
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def missing(
    lines: Sequence[dict[str, Any]], rows: Mapping[str, Any], parts: Mapping[str, Sequence[str]]
) -> str:
    """Name the parts of rows that were not run, by part; those of pairs that are not valid never are."""
    there = {(line["row"], line["part"]) for line in lines}
    absent: dict[str, list[str]] = {}
    for name, row in rows.items():
        for part in parts[name]:
            if (name, part) not in there and not is_invalid(row.models, lines):
                absent.setdefault(part, []).append(f"`{name}`")
    text = ["## Not run", ""]
    text += [f"- {part}: {', '.join(names)}" for part, names in absent.items()] or ["Nothing is missing."]
    return "\n".join(text)


def shares_of(
    lines: Sequence[dict[str, Any]], data: str, look: str
) -> dict[str, list[dict[str, list[float | None]]]]:
    """Return by method the shares of each seed whose test is valid, seeds in order."""
    found: dict[str, dict[int, dict[str, list[float | None]]]] = {}
    valid = {name for name, failures in checked(lines).items() if not failures}
    chosen = [line for line in lines if (line["data"], line["look"]) == (data, look) and line["row"] in valid]
    for line in sorted(chosen, key=lambda line: line["seed"]):
        for name, shares in line["shares"].items():
            found.setdefault(name, {}).setdefault(line["seed"], {}).update(shares)
    return {name: list(seeds.values()) for name, seeds in found.items()}


def checked(lines: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return for each row whose models were tested what speaks against its validity."""
    return {
        line["row"]: invalid_because(
            {HONEST: _effect(line["causal"]["U"]), CHEAT: _effect(line["causal"]["S"])}, seed=line["seed"]
        )
        for line in lines
        if line["part"] == "causal"
    }


def is_invalid(models: str, lines: Sequence[dict[str, Any]]) -> bool:
    """Whether the causal check of the row ``models`` was made and failed."""
    return bool(checked(lines).get(models))


def _num_valid(lines: Sequence[dict[str, Any]], data: str, rows: Mapping[str, Any]) -> str:
    """How many pairs count, of how many that were tested."""
    usual = [name for name, row in rows.items() if (row.data, row.look) == (data, "")]
    found = {name: failures for name, failures in checked(lines).items() if name in usual}
    num = sum(not failures for failures in found.values())
    return f"{num} pair{'s' * (num != 1)}" + (f" of {len(found)}" if num < len(found) else "")


def _pairs(seeds: Sequence[Mapping[str, list[float | None]]], cheat: str, honest: str) -> Pairs:
    both = [shares for shares in seeds if cheat in shares and honest in shares]
    return pairs([_tensor(each[cheat]) for each in both], [_tensor(each[honest]) for each in both])


def _tensor(values: Sequence[float | None]) -> Tensor:
    return torch.tensor([float("nan") if value is None else value for value in values], dtype=torch.float64)


def _effect(values: Mapping[str, list[float | None]]) -> Effect:
    return Effect(*(_tensor(values[key]).float() for key in ("full", "tag_removed", "tag_moved")))


def _drops(found: Effect, seed: int) -> tuple[Interval, Interval]:
    return found.drop(found.tag_removed, seed=seed), found.drop(found.tag_moved, seed=seed)


def _mean(seeds: Sequence[Mapping[str, list[float | None]]], key: str) -> str:
    """The mean over pairs of the mean over pictures."""
    means = [float(_tensor(shares[key]).nanmean()) for shares in seeds if key in shares]
    return f"{sum(means) / len(means):.3f}" if means else ""


def _sets(rows: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(row.data for row in rows.values()))


def _spell(found: Interval) -> str:
    if not found.num:
        return "not run"
    return f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})"


def _percent(found: Interval) -> str:
    if not found.num:
        return "not run"
    return f"{found.mean:z.0%} ({found.low:z.0%} to {found.high:z.0%})"
