"use strict";
// The viewer: one picture large, two things on it to compare (over each other, beside each other, blinking),
// zoom, and the value under the pointer or, for keyboards, under a crosshair.
const Viewer = (() => {
  const dialog = document.getElementById("viewer");
  if (!dialog) return { open() {} };
  const find = (name) => dialog.querySelector(name);
  const tools = find("form.tools"), frame = find(".frame"), panes = [...dialog.querySelectorAll(".pane")];
  const readout = find(".readout"), told = find(".told");
  let row = null, around = [], blinking = 0, zoom = 1, left = 0, top = 0, cross = null, turn = 0;
  const BASES = { image: "Image", truth: "Truth", prediction: "Prediction", errors: "Errors: invented, missed, right" };

  function choices(select, wanted) {
    const groups = [["Without a map", Object.entries(BASES).map(([value, text]) => [value, text])]];
    const targets = [...new Set(row.maps.map((map) => map.target))];
    for (const target of targets) {
      const maps = row.maps.map((map, i) => [map, i]).filter(([map]) => map.target === target);
      const entries = maps.flatMap(([map, i]) => {
        const ok = map.status === "ok" || map.evidence, text = Maps.nameOf(map);
        if (!ok || map.levels === undefined) return [];
        return [["map:" + i, text], ...(map.evidence && map.floored ? [["evidence:" + i, text + ", for and against"]] : [])];
      });
      if (entries.length) groups.push(["Heat map of " + target, entries]);
    }
    select.replaceChildren(...groups.map(([label, entries]) => {
      const group = document.createElement("optgroup");
      group.label = label;
      group.append(...entries.map(([value, text]) => new Option(text, value)));
      return group;
    }));
    select.value = wanted;
    if (!select.value) select.value = "image";
  }

  function partOf(value) {
    const [kind, number] = value.split(":");
    if (number === undefined) return { kind };
    const map = row.maps[Number(number)];
    return { kind, map, evidence: kind === "evidence" || Boolean(map.evidence && !map.floored) };
  }

  async function draw() {
    const mine = ++turn, mode = tools.elements.mode.value, marks = tools.elements;
    dialog.dataset.mode = mode;
    tools.querySelector(".second-name").textContent = mode === "over" ? "Show" : "B";
    const parts = [partOf(tools.elements.first.value), partOf(tools.elements.second.value)];
    const shown = mode === "over" ? [parts[1]] : parts;
    const all = parts.map((part) => part.map).filter(Boolean);
    for (const [i, pane] of panes.entries()) {
      const part = mode === "over" ? parts[1] : parts[i];
      pane.hidden = mode === "over" && i === 1;
      const limits = part.map ? Maps.limitsOf(part.map, { evidence: part.evidence, scale: marks.scale.value, all }) : null;
      pane.shows = { ...part, limits };
      const lines = {
        truth: marks.truth.checked || part.kind === "truth", prediction: marks.prediction.checked || part.kind === "prediction",
        target: marks.region.checked, errors: part.kind === "errors" || (mode === "over" && parts[0].kind === "errors"),
      };
      const opacity = Number(marks.opacity.value) / 100;
      await Stage.draw(pane.querySelector(".stage"), row, {
        map: part.map, evidence: part.evidence, limits, opacity, cells: marks.cells.checked, marks: lines, side: 720,
        solid: marks.solid.checked,
      });
      if (turn !== mine) return;
      pane.querySelector("figcaption").textContent = nameOf(part);
      scale(pane, part, limits);
    }
    tools.elements.percent.value = marks.opacity.value + "%";
    light();
    for (const pane of panes) ruler(pane);
    told.textContent = describe(shown);
    dialog.dataset.drawn = String(mine);
    blink(mode === "blink");
  }

  // Brightness and contrast of the picture alone: the map and the marks above it keep their colours.
  function light() {
    const { brightness, contrast } = tools.elements;
    tools.elements.brighter.value = brightness.value + "%";
    tools.elements.sharper.value = contrast.value + "%";
    for (const pane of panes) {
      pane.style.setProperty("--brightness", brightness.value + "%");
      pane.style.setProperty("--contrast", contrast.value + "%");
    }
  }

  // A scale bar in pixels of the picture: a round number, about a fifth of what is seen.
  function ruler(pane) {
    const [, columns] = Stage.shapeOf(row), seen = columns / zoom, bar = pane.querySelector(".ruler");
    const power = 10 ** Math.floor(Math.log10(seen / 5)), length = [5, 2, 1].map((each) => each * power).find((each) => each <= seen / 5) || power;
    const box = pane.querySelector(".window");
    bar.hidden = !box.offsetWidth || length < 1;
    bar.style.width = (length / columns * zoom * box.offsetWidth).toFixed(1) + "px";
    bar.textContent = length + " px";
  }

  const nameOf = (part) => part.map
    ? Maps.nameOf(part.map) + (part.evidence ? ", for and against " : ", target ") + part.map.target
    : BASES[part.kind];

  function scale(pane, part, limits) {
    const place = pane.querySelector(".scale");
    place.hidden = !part.map;
    if (!part.map) return;
    Maps.bar(place.querySelector("canvas"), limits);
    const ends = place.querySelectorAll(".end");
    ends[0].textContent = Maps.text(limits[0]);
    ends[1].textContent = Maps.text(limits[1]) + (part.map.unit ? " " + part.map.unit : "");
  }

  function describe(parts) {
    return parts.filter((part) => part.map).map((part) => {
      const found = [], map = part.map, stats = map.statistics;
      if (part.evidence && map.evidence.opposing !== null) {
        found.push("red speaks for the class (" + Math.round(100 * (1 - map.evidence.opposing)) + "%), blue against it (" + Math.round(100 * map.evidence.opposing) + "%)");
      }
      if (stats.mass_inside !== null && stats.mass_inside !== undefined) {
        const known = stats.area !== null && stats.area !== undefined;
        found.push(Math.round(100 * stats.mass_inside) + "% of the heat lies on the target"
          + (known ? ", which is " + Math.round(100 * stats.area) + "% of the " + Maps.noun(row) : ""));
      }
      const mirror = map.nulls.mirror ? map.nulls.mirror.mass_inside : null;
      if (mirror !== null && mirror !== undefined) found.push("a coarse copy of the mask has " + Math.round(100 * mirror) + "%");
      if (map.averaged) found.push("shown coarser, from " + map.finest + " cells a side");
      return nameOf(part) + ": " + (found.join("; ") || map.why || "no numbers") + ".";
    }).join(" ");
  }

  function blink(on) {
    window.clearInterval(blinking);
    blinking = 0;
    dialog.classList.remove("flipped");
    if (on && !tools.elements.pause.checked) blinking = window.setInterval(flip, 700);
  }
  const flip = () => dialog.classList.toggle("flipped");

  function place() {
    const limit = (value, span) => Math.min(0, Math.max(span * (1 - zoom), value));
    left = limit(left, 1);
    top = limit(top, 1);
    for (const pane of panes) {
      pane.style.setProperty("--zoom", String(zoom));
      pane.style.setProperty("--left", 100 * left + "%");
      pane.style.setProperty("--top", 100 * top + "%");
    }
    tools.elements.zoomed.value = Math.round(100 * zoom) + "%";
    if (row) for (const pane of panes) ruler(pane);
  }

  function zoomBy(factor, x = 0.5, y = 0.5) {
    const before = zoom;
    zoom = Math.min(16, Math.max(1, zoom * factor));
    left = x - (x - left) * zoom / before;
    top = y - (y - top) * zoom / before;
    place();
  }

  // Where a point is on the picture as it lies there without zoom, 0 to 1, and how wide and tall that is.
  function restOf(pane, event) {
    const view = pane.querySelector(".view").getBoundingClientRect(), box = pane.querySelector(".window");
    const [wide, tall] = [box.offsetWidth || 1, box.offsetHeight || 1];
    return { x: (event.clientX - view.left - box.offsetLeft) / wide, y: (event.clientY - view.top - box.offsetTop) / tall, wide, tall };
  }

  // Where in the picture, 0 to 1, a point of a pane is.
  function pointOf(pane, event) {
    const box = pane.querySelector(".window").getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  async function tell(pane, across, down) {
    const [rows, columns] = Stage.shapeOf(row), part = pane.shows;
    if (!part || across < 0 || across >= 1 || down < 0 || down >= 1) return;
    const spot = "x " + Math.floor(across * columns) + ", y " + Math.floor(down * rows);
    let value = "";
    if (part.map) {
      const found = await Maps.grid(part.map);
      const number = found ? Maps.valueAt(part.map, found, across, down, part.evidence, tools.elements.cells.checked) : NaN;
      const more = !part.map.layer && (number >= part.map.high ? " or more" : number <= part.map.low && number < 0 ? " or less" : "");
      value = Number.isNaN(number) ? ": not counted" : ": " + Maps.text(number) + (more || "") + (part.map.unit ? " " + part.map.unit : "");
    }
    readout.value = spot + value;
  }

  function aim(pane, across, down, quiet) {
    cross = [Math.min(0.999, Math.max(0, across)), Math.min(0.999, Math.max(0, down))];
    for (const each of panes) {
      const mark = each.querySelector(".cross");
      mark.hidden = false;
      mark.style.setProperty("--x", 100 * cross[0] + "%");
      mark.style.setProperty("--y", 100 * cross[1] + "%");
    }
    readout.setAttribute("aria-live", quiet ? "off" : "polite");
    tell(pane, ...cross);
  }

  function full() {
    const wanted = tools.elements.full.checked;
    for (const pane of panes) {
      const image = pane.querySelector("img.sharp");
      image.hidden = true;
      image.removeAttribute("src");
      if (!wanted || !row.full.orig) continue;
      image.onload = () => { image.hidden = false; told.textContent = "Showing the picture file beside the report, " + image.naturalWidth + " by " + image.naturalHeight + " pixels."; };
      image.onerror = () => { image.hidden = true; tools.elements.full.checked = false; told.textContent = "The picture file is not beside this report any more; the embedded copy is shown."; };
      image.src = row.full.orig;
    }
  }

  function show(next, map) {
    row = next;
    find("h2").textContent = row.name;
    find(".about").textContent = [row.run, row.split, row.dice === null ? "" : "Dice " + row.dice.toFixed(3)].filter(Boolean).join(" · ");
    // A map that is all against, or empty, gives way to the first that can be shown.
    const wanted = [map, ...row.maps].find((each) => each && each.levels !== undefined);
    const index = wanted ? row.maps.indexOf(wanted) : -1;
    const kind = wanted && wanted.floored && wanted.status !== "ok" ? "evidence" : "map";
    choices(tools.elements.first, "image");
    choices(tools.elements.second, index >= 0 ? kind + ":" + index : "errors");
    const image = row.image;
    for (const pane of panes) { pane.querySelector("img").src = image ? image.src : ""; pane.querySelector("img").alt = row.name; pane.querySelector(".cross").hidden = true; }
    const [rows, columns] = Stage.shapeOf(row);
    frame.style.setProperty("--ratio", String(columns / rows));
    tools.elements.full.closest("label").hidden = !row.full.orig;
    zoom = 1; left = 0; top = 0; cross = null;
    readout.value = "";
    place();
    full();
    draw();
  }

  const help = () => { const keys = find(".keys"); keys.open = !keys.open; if (keys.open) keys.scrollIntoView({ block: "nearest" }); };

  function open(next, map, list, wanted = {}) {
    around = list;
    for (const [name, value] of Object.entries(wanted)) {
      if (typeof value === "boolean") tools.elements[name].checked = value; else tools.elements[name].value = value;
    }
    if (!dialog.open) dialog.showModal();
    show(next, map);
    if (wanted.second) { tools.elements.second.value = wanted.second; draw(); }
  }

  function step(by) {
    if (!around.length) return;
    const before = row.maps.find((_, i) => tools.elements.second.value.endsWith(":" + i));
    const next = around[(around.indexOf(row) + by + around.length) % around.length];
    show(next, before && next.maps.find((map) => map.target === before.target && map.method === before.method && map.layer === before.layer));
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", (event) => (event.target.name === "full" ? full() : ["brightness", "contrast"].includes(event.target.name) ? light() : draw()));
  dialog.addEventListener("click", (event) => {
    const does = event.target.closest("[data-does]");
    if (!does) return;
    ({ close: () => dialog.close(), next: () => step(1), previous: () => step(-1), in: () => zoomBy(1.5), out: () => zoomBy(1 / 1.5), whole: () => { zoom = 1; place(); }, flip, keys: help, plain: () => { tools.elements.brightness.value = 100; tools.elements.contrast.value = 100; light(); } })[does.dataset.does]();
  });
  dialog.addEventListener("close", () => { blink(false); });
  frame.addEventListener("wheel", (event) => {
    const pane = event.target.closest(".pane");
    if (!pane) return;
    event.preventDefault();
    const { x, y } = restOf(pane, event);
    zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, x, y);
  }, { passive: false });

  const fingers = new Map();
  frame.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".view")) return;
    fingers.set(event.pointerId, event);
    frame.setPointerCapture(event.pointerId);
  });
  for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, (event) => fingers.delete(event.pointerId));
  frame.addEventListener("pointermove", (event) => {
    const pane = panes.find((each) => !each.hidden && inside(each, event)) || panes[0];
    const before = fingers.get(event.pointerId);
    if (fingers.size === 2 && before) {
      const other = [...fingers.values()].find((each) => each.pointerId !== event.pointerId);
      const apart = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1;
      const { x, y } = restOf(pane, other);
      zoomBy(apart(event, other) / apart(before, other), x, y);
      fingers.set(event.pointerId, event);
    } else if (before) {
      const { wide, tall } = restOf(pane, event);
      left += (event.clientX - before.clientX) / wide;
      top += (event.clientY - before.clientY) / tall;
      fingers.set(event.pointerId, event);
      place();
    }
    if (fingers.size < 2) aim(pane, ...pointOf(pane, event), true);
  });
  const inside = (pane, event) => { const box = pane.getBoundingClientRect(); return event.clientX >= box.left && event.clientX <= box.right; };

  frame.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (moves && event.shiftKey) { left -= 0.1 * moves[0]; top -= 0.1 * moves[1]; place(); event.preventDefault(); }
    else if (moves) {
      const [x, y] = cross || [0.5, 0.5];
      aim(panes.find((each) => each.contains(event.target)) || panes[0], x + 0.02 * moves[0], y + 0.02 * moves[1], false);
      event.preventDefault();
    }
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input:not([type=checkbox], [type=radio])") || event.ctrlKey || event.metaKey || event.altKey) return;
    const set = (name) => { tools.elements.mode.value = name; draw(); };
    const does = {
      "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => { zoom = 1; place(); },
      "?": help, n: () => step(1), p: () => step(-1), o: () => set("over"), s: () => set("side"), b: () => set("blink"), f: flip,
    }[event.key];
    if (does) { does(); event.preventDefault(); }
  });
  return { open };
})();
