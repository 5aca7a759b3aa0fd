// A brush over a picture. What is painted stays a list of strokes, each a radius and points in pixels of the
// picture; the event "submit" hands them over. Listeners are properties, so that beginning again replaces them.
let strokes = [];
let stroke = null;
let hand = null;

const find = (selector) => element.querySelector(selector);

function paint() {
  const canvas = find("canvas"), pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "rgba(86, 180, 233, 0.8)";
  for (const { radius, points } of strokes) {
    pen.lineWidth = 2 * radius;
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points.length > 1 ? points : [points[0], points[0]]) pen.lineTo(...point);
    pen.stroke();
  }
  if (hand) {
    pen.lineWidth = 2;
    pen.strokeStyle = "#d55e00";
    pen.beginPath();
    pen.arc(hand[0], hand[1], radius(), 0, 2 * Math.PI);
    pen.stroke();
  }
}

const radius = () => Number(find("input").value) / 2;

function place(event) {
  const canvas = find("canvas"), box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
}

function begin() {
  const canvas = find("canvas"), picture = find("img");
  const fit = () => {
    canvas.width = picture.naturalWidth;
    canvas.height = picture.naturalHeight;
    strokes = [];
    hand = null;
    paint();
  };
  picture.onload = fit;
  if (picture.complete && picture.naturalWidth) fit();
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    hand = null;
    stroke = { radius: radius(), points: [place(event)] };
    strokes.push(stroke);
    paint();
  };
  canvas.onpointermove = (event) => {
    if (!stroke) return;
    stroke.points.push(place(event));
    paint();
  };
  canvas.onpointerup = canvas.onpointercancel = () => { stroke = null; };
  canvas.onkeydown = (event) => {
    const step = Math.max(4, radius());
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (!(event.key in moves) && event.key !== " ") return;
    event.preventDefault();
    hand ??= [canvas.width / 2, canvas.height / 2];
    if (event.key === " ") strokes.push({ radius: radius(), points: [[...hand]] });
    else hand = hand.map((value, axis) => value + moves[event.key][axis]);
    paint();
  };
  canvas.onblur = () => { hand = null; paint(); };
  find(".undo").onclick = () => { strokes.pop(); paint(); };
  find(".clear").onclick = () => { strokes = []; paint(); };
  find(".remove").onclick = () => trigger("submit", { strokes });
}

begin();
watch("value", begin);
