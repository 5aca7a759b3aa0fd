"use strict";
// The slices of a volume: its three planes through one place, to scroll through, with a map and marks above.
const Slices = (() => {
  const dialog = document.getElementById("slices");
  if (!dialog) return { open() {} };
  const tools = dialog.querySelector("form.tools"), panes = [...dialog.querySelectorAll(".plane")];
  const readout = dialog.querySelector(".readout"), scale = dialog.querySelector(".scale");
  const NAMES = ["slice", "row", "column"], SIDE = 460;
  // Which axis (0 slices, 1 rows, 2 columns) a plane lies across, and which ones go down and across in it.
  const PLANES = [{ axis: 0, down: 1, across: 2 }, { axis: 1, down: 0, across: 2 }, { axis: 2, down: 0, across: 1 }];
  let card = null, volume = null, place = [0, 0, 0], shown = null, turn = 0;
  const unpacked = new Map();

  // The voxels of a volume, [z][y][x], out of the picture that holds its slices beside and below each other.
  // Those of the volume that is open are kept: each move draws anew.
  function voxels(number, size) {
    if (number === null || number === undefined) return null;
    if (!unpacked.has(number)) unpacked.set(number, unpack(number, size));
    return unpacked.get(number);
  }

  async function unpack(number, [slices, rows, columns]) {
    const { data, width } = await Maps.pixels(number), across = width / columns;
    const found = new Uint8Array(slices * rows * columns);
    for (let z = 0, i = 0; z < slices; z++) {
      const left = (z % across) * columns, top = Math.floor(z / across) * rows;
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++, i++) found[i] = data[4 * ((top + y) * width + left + x)];
      }
    }
    return found;
  }

  async function read() {
    const map = volume.maps[tools.elements.map.value], row = card.maps[Number(tools.elements.map.value)];
    const region = row ? volume.regions[row.target] : Object.values(volume.regions)[0];
    const [image, truth, prediction, target, levels] = await Promise.all([
      ...[volume.image, volume.truth, volume.prediction, region].map((each) => voxels(each, volume.size)),
      map ? voxels(map.levels, map.size) : null,
    ]);
    return { image, truth, prediction, target, map, row, levels };
  }

  const index = (size, [z, y, x]) => (z * size[1] + y) * size[2] + x;

  // The value of a map at a voxel of the picture, linear between the centres of its cells.
  function valueAt({ map, levels }, at) {
    const low = [], share = [];
    for (let axis = 0; axis < 3; axis++) {
      const spot = Math.min(map.size[axis] - 1, Math.max(0, (at[axis] + 0.5) / volume.size[axis] * map.size[axis] - 0.5));
      low.push(Math.floor(spot));
      share.push(spot - Math.floor(spot));
    }
    let sum = 0;
    for (let corner = 0; corner < 8; corner++) {
      let weight = 1;
      const cell = low.map((from, axis) => {
        const next = (corner >> axis) & 1;
        weight *= next ? share[axis] : 1 - share[axis];
        return Math.min(map.size[axis] - 1, from + next);
      });
      if (weight === 0) continue;
      const level = levels[index(map.size, cell)];
      if (!level) return NaN;
      sum += weight * (map.low + (level - 1) / 254 * (map.high - map.low));
    }
    return sum;
  }

  const spacing = () => volume.spacing || [1, 1, 1];
  const lengths = () => volume.size.map((length, axis) => length * spacing()[axis]);
  // Head up: slices are counted from the feet.
  const upward = (axis, at) => (axis === 0 ? volume.size[0] - 1 - at : at);
  const nativeOf = (axis, at) => Math.min(volume.native[axis] - 1, Math.floor((at + 0.5) * volume.native[axis] / volume.size[axis]));

  function drawPlane(pane, plane, limits) {
    const canvas = pane.querySelector("canvas"), sides = lengths(), perLength = SIDE / Math.max(...sides);
    const width = canvas.width = Math.max(1, Math.round(sides[plane.across] * perLength));
    const height = canvas.height = Math.max(1, Math.round(sides[plane.down] * perLength));
    const pen = canvas.getContext("2d"), drawn = pen.createImageData(width, height), at = [...place];
    const to = (x, y) => {
      at[plane.across] = Math.min(volume.size[plane.across] - 1, Math.floor(x * volume.size[plane.across]));
      at[plane.down] = upward(plane.down, Math.min(volume.size[plane.down] - 1, Math.floor(y * volume.size[plane.down])));
      return at;
    };
    const contrast = Number(tools.elements.contrast.value) / 100, level = Number(tools.elements.level.value) / 100;
    const opacity = Number(tools.elements.opacity.value) / 100;
    for (let row = 0, i = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i += 4) {
        to((column + 0.5) / width, (row + 0.5) / height);
        const grey = 255 * ((shown.image[index(volume.size, at)] / 255 - 0.5) * contrast + 0.5 + level);
        let colour = [grey, grey, grey];
        if (shown.map) {
          const value = valueAt(shown, at);
          if (Number.isNaN(value)) {
            if ((column + row) % 12 < 2) colour = [120, 128, 140];
          } else {
            const [steps, step, alpha] = Maps.colour(value, limits);
            colour = colour.map((under, k) => under + (steps[step + k] - under) * alpha * opacity);
          }
        }
        drawn.data.set([...colour, 255], i);
      }
    }
    const marks = { truth: tools.elements.truth, prediction: tools.elements.prediction, target: tools.elements.region };
    for (const [name, field] of Object.entries(marks)) {
      const mask = shown[name];
      if (field.checked && mask) Stage.outline(drawn, width, height, (x, y) => mask[index(volume.size, to(x, y))] > 0, Stage.MARKS[name]);
    }
    pen.putImageData(drawn, 0, 0);
    const spot = (axis, length) => (upward(axis, place[axis]) + 0.5) / volume.size[axis] * length;
    if (tools.elements.lines.checked) {
      pen.strokeStyle = "rgba(255, 255, 255, .45)";
      pen.setLineDash([4, 4]);
      const x = spot(plane.across, width), y = spot(plane.down, height);
      pen.strokeRect(x, -2, 0, height + 4);
      pen.strokeRect(-2, y, width + 4, 0);
      pen.setLineDash([]);
    }
    ruler(pen, width, height, perLength);
    const slider = pane.querySelector("input"), native = nativeOf(plane.axis, place[plane.axis]);
    slider.max = volume.size[plane.axis] - 1;
    slider.value = place[plane.axis];
    const text = NAMES[plane.axis] + " " + native + " of 0 to " + (volume.native[plane.axis] - 1);
    slider.setAttribute("aria-valuetext", text);
    pane.querySelector("output").value = text;
  }

  // A bar of a round length, at most a third of the plane.
  function ruler(pen, width, height, perLength) {
    const most = width / 3 / perLength, ten = 10 ** Math.floor(Math.log10(most));
    const length = [5, 2, 1].map((times) => times * ten).find((each) => each <= most) || ten;
    const text = length + (volume.spacing ? " mm" : " voxels");
    pen.font = "12px sans-serif";
    pen.fillStyle = "rgba(0, 0, 0, .65)";
    pen.fillRect(6, height - 28, Math.max(length * perLength, pen.measureText(text).width) + 8, 24);
    pen.fillStyle = "#fff";
    pen.fillRect(10, height - 9, length * perLength, 2);
    pen.fillText(text, 10, height - 14);
  }

  async function draw() {
    const mine = ++turn, found = await read();
    if (turn !== mine) return;
    shown = found;
    const limits = shown.map ? Maps.limitsOf(shown.row) : null;
    panes.forEach((pane, i) => drawPlane(pane, PLANES[i], limits));
    scale.hidden = !shown.map;
    if (shown.map) {
      Maps.bar(scale.querySelector("canvas"), limits);
      const ends = scale.querySelectorAll(".end");
      ends[0].textContent = Maps.text(limits[0]);
      ends[1].textContent = Maps.text(limits[1]) + (shown.row.unit ? " " + shown.row.unit : "");
    }
    tools.elements.percent.value = tools.elements.opacity.value + "%";
    tools.elements.brighter.value = tools.elements.level.value + "%";
    tools.elements.sharper.value = tools.elements.contrast.value + "%";
    const here = index(volume.size, place), names = Maps.album.classes[card.run] || [];
    const nameOf = (number) => names[number] ?? "class " + number;
    // Where classes overlap, the bits of a voxel say which are there.
    const overlapping = (bits) => names.slice(1).filter((_, i) => bits >> i & 1).join(" and ") || nameOf(0);
    const className = (mask) => (Maps.album.overlapping[card.run] ? overlapping : nameOf)(mask[here]);
    const parts = place.map((at, axis) => NAMES[axis] + " " + nativeOf(axis, at));
    if (shown.map) { const value = valueAt(shown, place); parts.push(Maps.nameOf(shown.row) + " " + (Number.isNaN(value) ? "not counted" : Maps.text(value))); }
    if (shown.truth) parts.push("truth: " + className(shown.truth));
    if (shown.prediction) parts.push("prediction: " + className(shown.prediction));
    readout.value = parts.join(", ");
    dialog.dataset.drawn = String(mine);
  }

  // To the slices, rows and columns in which most of the target lies, or the prediction, or the middle.
  async function toTarget() {
    const found = await read(), mask = [found.target, found.prediction].find((each) => each && each.some((v) => v > 0));
    place = volume.size.map((length) => Math.floor(length / 2));
    if (mask) {
      const counts = volume.size.map((length) => new Array(length).fill(0));
      for (let z = 0, i = 0; z < volume.size[0]; z++) for (let y = 0; y < volume.size[1]; y++) for (let x = 0; x < volume.size[2]; x++, i++) {
        if (mask[i]) { counts[0][z]++; counts[1][y]++; counts[2][x]++; }
      }
      place = counts.map((each) => each.indexOf(Math.max(...each)));
    }
    draw();
  }

  function open(next) {
    card = next;
    volume = card.slices;
    unpacked.clear();
    dialog.querySelector("h2").textContent = card.name;
    dialog.querySelector(".about").textContent = [card.run, card.split, card.dice === null ? "" : "Dice " + card.dice.toFixed(3)].filter(Boolean).join(" · ");
    dialog.querySelector(".sides").textContent = volume.spacing ? "The patient's right is on the left of the axial and the coronal plane, the front is on the left of the sagittal one, the head is up." : "";
    const several = new Set(card.maps.map((map) => map.target)).size > 1;
    const maps = Object.keys(volume.maps).map((i) => new Option(Maps.nameOf(card.maps[i]) + (several ? ", target " + card.maps[i].target : ""), i));
    tools.elements.map.replaceChildren(...maps, new Option("none", ""));
    dialog.showModal();
    toTarget();
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", draw);
  const go = (axis, at) => { place[axis] = Math.min(volume.size[axis] - 1, Math.max(0, at)); };
  panes.forEach((pane, i) => {
    const plane = PLANES[i], canvas = pane.querySelector("canvas");
    pane.querySelector("input").addEventListener("input", (event) => { go(plane.axis, Number(event.target.value)); draw(); });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); go(plane.axis, place[plane.axis] + (event.deltaY < 0 ? 1 : -1)); draw(); }, { passive: false });
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const spot = (axis, share) => go(axis, upward(axis, Math.floor(share * volume.size[axis])));
      spot(plane.across, (event.clientX - box.left) / box.width);
      spot(plane.down, (event.clientY - box.top) / box.height);
      draw();
    });
  });
  dialog.addEventListener("click", (event) => {
    const does = event.target.closest("[data-does]");
    if (does) ({ close: () => dialog.close(), target: toTarget })[does.dataset.does]();
  });
  return { open };
})();
