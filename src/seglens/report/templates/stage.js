"use strict";
// A stage: one picture with a map and marks above it, all of one size. Layers are canvases of their own, so
// opacity and blinking cost nothing.
const Stage = (() => {
  const MARKS = { truth: [255, 255, 255], prediction: [255, 176, 0], target: [86, 220, 255] };
  // Told apart by lightness and by pattern, so that no colour vision is needed: dark stripes, bright dots, a pale veil.
  const ERRORS = { missed: [38, 70, 200, 225], invented: [255, 128, 0, 225], right: [214, 245, 225, 120] };
  const PATTERN = {
    missed: (x, y) => (x + y) % 6 < 3,
    invented: (x, y) => x % 5 < 3 && y % 5 < 3,
    right: () => true,
  };

  // The colour of a pixel of an error: in the gaps of a pattern the same, but thinner.
  function errorAt(kind, x, y) {
    const [red, green, blue, alpha] = ERRORS[kind];
    return [red, green, blue, PATTERN[kind](x, y) ? alpha : 0.55 * alpha];
  }

  const at = (mask, across, down) => {
    const x = Math.min(mask.width - 1, Math.floor(across * mask.width));
    const y = Math.min(mask.height - 1, Math.floor(down * mask.height));
    return 4 * (y * mask.width + x);
  };
  const colourAt = (mask, across, down) => {
    const i = at(mask, across, down);
    return (mask.data[i] << 16) | (mask.data[i + 1] << 8) | mask.data[i + 2];
  };

  function layer(stage, name) {
    let canvas = stage.querySelector("canvas." + name);
    if (!canvas) {
      canvas = document.createElement("canvas");
      canvas.className = name;
      canvas.setAttribute("aria-hidden", "true");
      stage.append(canvas);
    }
    return canvas;
  }

  function sized(canvas, card, side) {
    const [rows, columns] = shapeOf(card), share = side / Math.max(rows, columns);
    const width = Math.max(1, Math.round(columns * share)), height = Math.max(1, Math.round(rows * share));
    canvas.width = width;
    canvas.height = height;
  }

  function shapeOf(card) {
    if (card.native) return card.native;
    const image = card.image;
    return image && image.naturalWidth ? [image.naturalHeight, image.naturalWidth] : [1, 1];
  }

  // Outlines of regions: a dark line beside a bright one stays visible on any ground.
  function outline(image, width, height, inside, rgb, dash = () => true) {
    const region = new Uint8Array(width * height);
    for (let row = 0, i = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i++) {
        region[i] = inside((column + 0.5) / width, (row + 0.5) / height) ? 1 : 0;
      }
    }
    for (let row = 0, i = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i++) {
        const here = region[i];
        const beside = (column && region[i - 1] !== here) || (column < width - 1 && region[i + 1] !== here)
          || (row && region[i - width] !== here) || (row < height - 1 && region[i + width] !== here);
        if (!beside || !dash(column, row)) continue;
        image.data.set(here ? [...rgb, 255] : [0, 0, 0, 170], 4 * i);
      }
    }
  }

  async function marks(canvas, card, wanted, target) {
    const { width, height } = canvas, pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
    const open = async (number) => (number === null || number === undefined ? null : Maps.pixels(number));
    const [truth, prediction] = await Promise.all([open(card.truth), open(card.prediction)]);
    const valid = await open(card.valid);
    if (wanted.errors && truth && prediction) {
      for (let row = 0, i = 0; row < height; row++) {
        for (let column = 0; column < width; column++, i += 4) {
          const across = (column + 0.5) / width, down = (row + 0.5) / height;
          if (valid && !valid.data[at(valid, across, down)]) continue;
          const is = colourAt(truth, across, down), said = colourAt(prediction, across, down);
          if (is === said) { if (is !== album.background) image.data.set(errorAt("right", column, row), i); continue; }
          image.data.set(errorAt(said !== album.background ? "invented" : "missed", column, row), i);
        }
      }
    }
    if (wanted.truth && truth) {
      outline(image, width, height, (x, y) => colourAt(truth, x, y) !== album.background, MARKS.truth);
    }
    const region = wanted.target && target !== undefined ? await open(card.regions[target]) : null;
    if (region) outline(image, width, height, (x, y) => region.data[at(region, x, y)] > 127, MARKS.target);
    // The prediction last, and dashed: where it is the target, both are seen.
    if (wanted.prediction && prediction) {
      const dash = region ? (x, y) => (x + y) % 12 < 6 : () => true;
      outline(image, width, height, (x, y) => colourAt(prediction, x, y) !== album.background, MARKS.prediction, dash);
    }
    pen.putImageData(image, 0, 0);
  }

  const album = Maps.album;

  // Draw what `how` says: {map, evidence, limits, opacity, cells, marks: {truth, prediction, target, errors}, side}.
  async function draw(stage, card, how) {
    const turn = (stage.turn || 0) + 1;
    stage.turn = turn;
    const heat = layer(stage, "heat"), lines = layer(stage, "marks"), image = stage.querySelector("img");
    const [rows, columns] = shapeOf(card);
    stage.style.setProperty("--shape", `${columns} / ${rows}`);
    const fresh = document.createElement("canvas"), drawn = document.createElement("canvas");
    let painted = false;
    if (how.map) {
      sized(fresh, card, how.side);
      painted = await Maps.paint(fresh, how.map, how);
    }
    sized(drawn, card, how.side);
    await marks(drawn, card, how.marks || {}, how.map ? how.map.target : undefined);
    // A later call may have overtaken this one while pictures were decoded.
    if (stage.turn !== turn) return false;
    for (const [canvas, source] of [[heat, fresh], [lines, drawn]]) {
      canvas.width = source.width;
      canvas.height = source.height;
      canvas.getContext("2d").drawImage(source, 0, 0);
    }
    heat.hidden = !painted;
    stage.classList.toggle("has-heat", painted);
    const ready = how.map && how.map.drawn !== undefined && how.map.drawn !== null && !painted;
    const wanted = ready ? album.assets[how.map.drawn] : card.image ? card.image.src : "";
    if (image && image.src !== wanted) image.src = wanted;
    stage.style.setProperty("--opacity", String(how.opacity));
    return painted;
  }

  return { draw, shapeOf, outline, MARKS, ERRORS };
})();
