// A picture that tells where it was clicked, in its own pixels, however large it is shown.

function render({ model, el }) {
  const picture = document.createElement("img");
  picture.alt = model.get("alt");
  picture.style.width = "384px";
  picture.style.maxWidth = "100%";
  picture.style.cursor = "crosshair";

  let address = "";
  const draw = () => {
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(new Blob([model.get("value")], { type: "image/png" }));
    picture.src = address;
    picture.hidden = model.get("value").byteLength === 0;
  };

  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * picture.naturalWidth;
    const y = ((event.clientY - box.top) / box.height) * picture.naturalHeight;
    model.send({ x, y });
  });

  draw();
  model.on("change:value", draw);
  el.append(picture);
  return () => {
    model.off("change:value", draw);
    URL.revokeObjectURL(address);
  };
}

export default { render };
