"use strict";
// The gallery: order, filters, and which map lies over the pictures. Without this script the pictures stand alone.
const Gallery = (() => {
  const form = document.getElementById("controls");
  const list = document.getElementById("cards");
  const cards = list ? [...list.children].map(card) : [];
  let showing = 0;

  function card(element) {
    const row = Maps.album.cards[Number(element.dataset.card)];
    row.element = element;
    row.image = element.querySelector(".stage img");
    return row;
  }

  const field = (name) => (form && form.elements[name] ? form.elements[name] : null);
  const chosen = (name) => { const found = field(name); return found ? found.value : ""; };
  const ticked = (name) => { const found = field(name); return Boolean(found && found.checked); };

  // The map that a card shows: a method of the input has no layer, so it fits every choice of layer.
  function mapOf(row) {
    const [target, method, layer] = [chosen("target"), chosen("method"), chosen("layer")];
    return row.maps.find((map) => map.target === target && map.method === method
      && (map.layer === layer || !map.layer));
  }

  const evidenceOf = (map) => Boolean(map && map.evidence && ticked("evidence"));

  function outside(row) {
    const map = mapOf(row), inside = map ? map.statistics.mass_inside : null;
    return inside === null || inside === undefined ? null : 1 - inside;
  }

  const gaps = new Map();
  for (const row of cards) {
    if (row.dice !== null) gaps.set(row.split + "\n" + row.name, [...(gaps.get(row.split + "\n" + row.name) || []), row.dice]);
  }
  const KEYS = {
    dice: (row) => row.dice,
    fp: (row) => row.scores.false_positive_pixels,
    fn: (row) => row.scores.false_negative_pixels,
    missed: (row) => row.scores.missed_objects,
    invented: (row) => row.scores.invented_objects,
    outside,
    flags: (row) => row.flags.length,
    gap: (row) => {
      const all = gaps.get(row.split + "\n" + row.name) || [];
      return all.length > 1 ? Math.max(...all) - Math.min(...all) : null;
    },
  };
  const FILTERS = {
    "": () => true,
    flagged: (row) => row.flags.length > 0,
    fp: (row) => row.scores.false_positive_pixels > 0,
    fn: (row) => row.scores.false_negative_pixels > 0,
    missed: (row) => row.scores.missed_objects > 0,
    invented: (row) => row.scores.invented_objects > 0,
    explained: (row) => row.maps.length > 0,
    failed: (row) => row.status === "failed",
  };

  // A missing number comes last, whichever way the cards are sorted.
  function compare(sort) {
    const sign = sort.startsWith("-") ? -1 : 1, key = KEYS[sort.replace("-", "")];
    return (one, other) => {
      const byName = one.name.localeCompare(other.name) || one.run.localeCompare(other.run);
      if (!key) return byName;
      const a = key(one), b = key(other), none = (value) => value === null || value === undefined;
      if (none(a) || none(b)) return none(a) - none(b) || byName;
      return sign * (a - b) || byName;
    };
  }

  function arrange() {
    const explained = (row) => row.maps.length > 0;
    const below = parseFloat(chosen("below")), text = chosen("find").toLowerCase(), run = chosen("run");
    const kept = FILTERS[chosen("only")] || FILTERS[""];
    let shown = 0;
    const order = compare(chosen("sort"));
    // Explained pictures first, where the order is the one that the page opens with.
    const first = chosen("sort") === "dice" ? (one, other) => explained(other) - explained(one) : () => 0;
    for (const row of [...cards].sort((one, other) => first(one, other) || order(one, other))) {
      const hidden = !row.name.toLowerCase().includes(text) || (run !== "" && row.run !== run)
        || (!Number.isNaN(below) && !(row.dice !== null && row.dice < below)) || !kept(row);
      row.element.hidden = hidden;
      shown += !hidden;
      list.append(row.element);
    }
    field("count").value = shown + " of " + cards.length + " shown";
  }

  function reading(row, map, limits) {
    const place = row.element.querySelector(".reading");
    if (!place) return;
    const bar = place.querySelector("canvas"), ends = place.querySelectorAll(".end");
    const told = place.querySelector(".told"), ok = map && (map.status === "ok" || evidenceOf(map));
    place.querySelector(".scale").hidden = !ok || map.levels === undefined;
    if (!map) { told.textContent = row.maps.length ? "This map was not made for this " + Maps.noun(row) + "." : "This " + Maps.noun(row) + " was not explained."; return; }
    if (!ok) { told.textContent = "No heat map: " + map.why + "."; return; }
    Maps.bar(bar, limits);
    ends[0].textContent = Maps.text(limits[0]);
    ends[1].textContent = Maps.text(limits[1]) + (map.unit ? " " + map.unit : "");
    const share = outside(row), mirror = map.nulls.mirror ? map.nulls.mirror.mass_inside : null;
    const parts = [];
    if (evidenceOf(map) && map.evidence.opposing !== null) {
      parts.push(Math.round(100 * (1 - map.evidence.opposing)) + "% for, " + Math.round(100 * map.evidence.opposing) + "% against");
    }
    if (share !== null) parts.push(Math.round(100 * share) + "% of the heat lies outside the target"
      + (mirror === null || mirror === undefined ? "" : " (coarse mask: " + Math.round(100 * (1 - mirror)) + "%)"));
    if (map.averaged) parts.push("shown coarser, from " + map.finest + " cells a side");
    told.textContent = parts.join("; ");
  }

  // Draw every card, visible ones first; a later choice overtakes an earlier one.
  async function drawAll() {
    const turn = ++showing, view = chosen("view") || "overlay", wanted = view !== "off";
    list.dataset.view = view;
    const maps = new Map(cards.map((row) => [row, wanted ? mapOf(row) : undefined]));
    const all = [...maps.values()].filter(Boolean);
    const order = [...cards].sort((one, other) => one.element.hidden - other.element.hidden);
    for (const row of order) {
      if (showing !== turn) return;
      const map = maps.get(row), evidence = evidenceOf(map);
      const limits = map ? Maps.limitsOf(map, { evidence, scale: chosen("scale"), all }) : null;
      reading(row, wanted ? map : mapOf(row), limits || (mapOf(row) ? Maps.limitsOf(mapOf(row)) : [0, 1]));
      const [first, second] = row.element.querySelectorAll(".stage");
      if (!first) continue;
      const marks = { truth: ticked("truth"), prediction: ticked("prediction"), target: ticked("region"), errors: ticked("errors") };
      const how = { map, evidence, limits, opacity: Number(chosen("opacity")) / 100, cells: ticked("cells"), marks, side: 320 };
      if (second) {
        const plain = { ...how, map: undefined };
        await Stage.draw(first, row, view === "side" ? plain : how);
        if (view === "side") await Stage.draw(second, row, how);
      }
    }
    list.dataset.drawn = String(turn);
  }

  function enable() {
    const method = chosen("method"), layer = field("layer");
    const some = cards.flatMap((row) => row.maps).filter((map) => map.method === method);
    if (layer) layer.disabled = some.length > 0 && some.every((map) => !map.layer);
    const evidence = field("evidence");
    if (evidence) evidence.disabled = !some.some((map) => map.target === chosen("target") && map.evidence);
  }

  function numbersOf(row) {
    const table = document.createElement("table");
    table.className = "small";
    const cell = (line, text, name) => { const made = document.createElement(name || "td"); made.textContent = text; line.append(made); return made; };
    const add = (texts, name) => { const line = table.insertRow(); texts.forEach((text, i) => { const one = cell(line, text, i === 0 || name ? "th" : "td"); if (one.tagName === "TH") one.scope = name ? "col" : "row"; }); };
    const names = [...new Set(row.maps.flatMap((map) => Object.keys(map.statistics)))];
    add(["Map", "Target", ...names.map((name) => name.replaceAll("_", " "))], "th");
    for (const map of row.maps) {
      add([Maps.nameOf(map), map.target, ...names.map((name) => Maps.text(map.statistics[name]))]);
      for (const [null_, values] of Object.entries(map.nulls)) {
        if (null_ === "mirror") add(["coarse mask", map.target, ...names.map((name) => Maps.text(values[name]))]);
      }
    }
    return table;
  }

  if (form && list) {
    form.hidden = false;
    for (const row of cards) {
      const figure = row.element.querySelector(".stages figure");
      if (figure) {
        const second = figure.cloneNode(true);
        second.classList.add("second");
        const image = second.querySelector("img");
        image.alt = "";
        second.querySelector(".stage").tabIndex = -1;
        second.querySelector(".stage").setAttribute("aria-hidden", "true");
        figure.after(second);
      }
      const details = row.element.querySelector("details.numbers");
      if (details) details.addEventListener("toggle", () => {
        const place = details.querySelector(".scroll");
        if (details.open && place && !place.firstChild) place.append(numbersOf(row));
      });
    }
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => {
      const name = event.target.name;
      if (name === "opacity") {
        field("percent").value = chosen("opacity") + "%";
        for (const stage of list.querySelectorAll(".stage")) stage.style.setProperty("--opacity", String(chosen("opacity") / 100));
        return;
      }
      enable();
      arrange();
      if (!["find", "below", "sort", "only", "run"].includes(name)) drawAll();
    });
    enable();
    arrange();
    Promise.all(cards.map((row) => (row.image ? row.image.decode().catch(() => null) : null))).then(drawAll);
    for (const button of list.querySelectorAll(".scroll-slices")) button.hidden = false;
    list.addEventListener("click", (event) => {
      if (event.target.matches(".scroll-slices")) Slices.open(Maps.album.cards[Number(event.target.closest(".card").dataset.card)]);
      const stage = event.target.closest(".stage");
      if (!stage) return;
      const row = Maps.album.cards[Number(stage.closest(".card").dataset.card)];
      Viewer.open(row, mapOf(row), shownCards());
    });
  }
  const shownCards = () => [...list.children].filter((element) => !element.hidden).map((element) => Maps.album.cards[Number(element.dataset.card)]);
  return { cards, mapOf };
})();
