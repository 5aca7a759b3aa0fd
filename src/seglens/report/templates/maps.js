"use strict";
// Maps and masks: from 8-bit pictures back to values, and from values to colours on a canvas.
const Maps = (() => {
  const holder = document.getElementById("album");
  const album = holder ? JSON.parse(holder.textContent) : { assets: [], cards: [] };
  const opened = new Map();

  // The pixels of an embedded picture: a promise of {data, width, height}.
  function pixels(number) {
    if (!opened.has(number)) {
      opened.set(number, (async () => {
        const image = new Image();
        image.src = album.assets[number];
        await image.decode();
        const canvas = document.createElement("canvas");
        canvas.width = image.naturalWidth;
        canvas.height = image.naturalHeight;
        const pen = canvas.getContext("2d", { willReadFrequently: true });
        pen.drawImage(image, 0, 0);
        return pen.getImageData(0, 0, canvas.width, canvas.height);
      })());
    }
    return opened.get(number);
  }

  // A map ready to be read: level 0 has no value, 1 to 255 go evenly from low to high.
  const read = new Map();
  async function grid(map) {
    if (map.levels === undefined || map.levels === null) return null;
    if (!read.has(map)) {
      const found = await pixels(map.levels);
      const counted = map.counted === null || map.counted === undefined ? null : await pixels(map.counted);
      const values = new Float32Array(found.width * found.height);
      for (let i = 0; i < values.length; i++) {
        const level = found.data[4 * i];
        values[i] = level ? map.low + (level - 1) / 254 * (map.high - map.low) : NaN;
      }
      read.set(map, { values, counted, columns: found.width, rows: found.height });
    }
    return read.get(map);
  }

  // The value at a point of the picture, 0 to 1 across and down, as the layer was brought to size: bilinear
  // between the centres of its cells. `evidence` keeps what is below 0 where the map itself doesn't.
  function valueAt(map, found, across, down, evidence, cells) {
    if (found.counted) {
      const { width, height, data } = found.counted;
      const x = Math.min(width - 1, Math.floor(across * width)), y = Math.min(height - 1, Math.floor(down * height));
      if (data[4 * (y * width + x)] < 128) return NaN;
    }
    const [left, top, wide, tall] = map.part;
    const { values, columns, rows } = found;
    const floored = map.floored && !evidence;
    let x = (left + across * wide) * columns - 0.5, y = (top + down * tall) * rows - 0.5;
    if (cells) { x = Math.round(x); y = Math.round(y); }
    x = Math.min(columns - 1, Math.max(0, x));
    y = Math.min(rows - 1, Math.max(0, y));
    const x0 = Math.floor(x), y0 = Math.floor(y), x1 = Math.min(columns - 1, x0 + 1), y1 = Math.min(rows - 1, y0 + 1);
    const fx = x - x0, fy = y - y0;
    let a = values[y0 * columns + x0], b = values[y0 * columns + x1];
    let c = values[y1 * columns + x0], d = values[y1 * columns + x1];
    if (floored) { a = Math.max(0, a); b = Math.max(0, b); c = Math.max(0, c); d = Math.max(0, d); }
    if (fx === 0) { b = a; d = c; }
    if (fy === 0) { c = a; d = b; }
    return (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy;
  }

  // The values at the two ends of the colours.
  function limitsOf(map, { evidence = false, scale = "own", all = [] } = {}) {
    const own = (each) => {
      const of = evidence && each.evidence ? each.evidence.limits : each.limits;
      return of || [Math.min(0, each.low || 0), each.high || 1];
    };
    let [low, high] = own(map);
    if (scale === "shared") {
      const others = all.filter((each) => each.status === "ok" || (evidence && each.evidence)).map(own);
      low = Math.min(low, ...others.map((each) => each[0]));
      high = Math.max(high, ...others.map((each) => each[1]));
    }
    if (low < 0) { const reach = Math.max(-low, high); return [-reach, reach]; }
    return [low, high];
  }

  // How far along the colours a value is, and how much of it covers the picture: nothing at all at 0.
  function colour(value, [low, high]) {
    const share = Math.min(1, Math.max(0, (value - low) / (high - low)));
    const step = Math.min(255, Math.floor(share * 256));
    const nothing = low < 0 ? 0 : low;
    const strength = Math.min(1, Math.abs(value - nothing) / Math.max(high - nothing, nothing - low));
    return [low < 0 ? COLOURS.signed : COLOURS.heat, 3 * step, Math.min(1, 2 * strength)];
  }

  async function paint(canvas, map, { evidence, cells, limits, solid }) {
    const found = await grid(map);
    if (!found) return false;
    const { width, height } = canvas, pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
    for (let row = 0, i = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i += 4) {
        const value = valueAt(map, found, (column + 0.5) / width, (row + 0.5) / height, evidence, cells);
        if (Number.isNaN(value)) {
          // Not counted, or no value: hatched.
          const line = (column + row) % 12 < 2;
          image.data.set(line ? [120, 128, 140, 230] : [209, 213, 219, 120], i);
          continue;
        }
        const [steps, at, alpha] = colour(value, limits);
        image.data[i] = steps[at];
        image.data[i + 1] = steps[at + 1];
        image.data[i + 2] = steps[at + 2];
        image.data[i + 3] = solid ? 255 : 255 * alpha;
      }
    }
    pen.putImageData(image, 0, 0);
    return true;
  }

  function bar(canvas, limits) {
    const pen = canvas.getContext("2d"), image = pen.createImageData(canvas.width, canvas.height);
    for (let column = 0; column < canvas.width; column++) {
      const value = limits[0] + (column + 0.5) / canvas.width * (limits[1] - limits[0]);
      const [steps, at] = colour(value, limits);
      for (let row = 0; row < canvas.height; row++) {
        image.data.set([steps[at], steps[at + 1], steps[at + 2], 255], 4 * (row * canvas.width + column));
      }
    }
    pen.putImageData(image, 0, 0);
  }

  const text = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "—";
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e4 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  };

  const nameOf = (map) => map.method + (map.layer ? " @ " + map.layer : "");

  // What a card is about: a picture, or a volume.
  const noun = (card) => album.nouns[card.run];

  return { album, noun, pixels, grid, valueAt, limitsOf, colour, paint, bar, text, nameOf };
})();
