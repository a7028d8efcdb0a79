// A picture to click and paint on. Gradio gives: element, props, trigger, watch.
// The server sends {picture, number, points, mask}; the page sends {number, points, mask} back:
// points are [x, y, label] with x and y as shares of width and height, the mask is a PNG whose opacity counts.
(() => {
  const PAINT = "rgb(32, 140, 255)", ON = "#1faa59", BESIDE = "#e5484d", SHARPEST = 1024;
  const find = (selector) => element.querySelector(selector);
  const root = find(".pad"), stage = find(".stage"), canvas = find("canvas"), size = find(".size");
  const mask = document.createElement("canvas");
  const buttons = [...element.querySelectorAll("[data-tool]")];
  let picture = null, number = null, points = [], painted = false, history = [], stroke = null;
  let tool = buttons[0].dataset.tool;

  const choose = (name) => {
    tool = name;
    buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.tool === name)));
    if (size) size.hidden = !["paint", "erase"].includes(name);
  };
  const radius = () => (Number(size ? size.value : 24) / 800) * Math.max(mask.width, mask.height);

  const draw = () => {
    stage.classList.toggle("filled", picture !== null);
    if (!picture) return;
    const zoom = Math.max(1, Math.min(4, SHARPEST / Math.max(picture.width, picture.height)));
    canvas.width = Math.round(picture.width * zoom);
    canvas.height = Math.round(picture.height * zoom);
    const pen = canvas.getContext("2d");
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    pen.globalAlpha = 0.55;
    pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
    pen.globalAlpha = 1;
    for (const [x, y, label] of points) {
      pen.beginPath();
      pen.arc(x * canvas.width, y * canvas.height, Math.max(canvas.width, canvas.height) / 70, 0, 2 * Math.PI);
      pen.fillStyle = label ? ON : BESIDE;
      pen.fill();
      pen.lineWidth = Math.max(canvas.width, canvas.height) / 250;
      pen.strokeStyle = "white";
      pen.stroke();
    }
  };
  const send = () => {
    props.value = { number, points, mask: painted ? mask.toDataURL("image/png") : null };
    root.dataset.marks = JSON.stringify({ points: points.length, painted });
    trigger("input");
  };
  const remember = () => {
    history.push({ points: points.slice(), painted, mask: mask.getContext("2d").getImageData(0, 0, mask.width, mask.height) });
    history = history.slice(-10);
  };
  const load = (source) =>
    new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = reject;
      image.src = source;
    });

  const take = async () => {
    const value = props.value;
    if (value && !value.picture) return; // our own marks
    if (!value) {
      picture = null;
      number = null;
      draw();
      delete root.dataset.number;
      return;
    }
    const given = await load(value.picture);
    picture = given;
    number = value.number;
    mask.width = picture.width;
    mask.height = picture.height;
    points = (value.points || []).slice();
    painted = Boolean(value.mask);
    history = [];
    if (value.mask) {
      const pen = mask.getContext("2d");
      pen.drawImage(await load(value.mask), 0, 0, mask.width, mask.height);
      pen.globalCompositeOperation = "source-in";
      pen.fillStyle = PAINT;
      pen.fillRect(0, 0, mask.width, mask.height);
      pen.globalCompositeOperation = "source-over";
    }
    draw();
    send();
    root.dataset.number = number;
  };

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const share = (v) => Math.min(1, Math.max(0, v));
    return [share((event.clientX - box.left) / box.width), share((event.clientY - box.top) / box.height)];
  };
  const dab = (from, to) => {
    const pen = mask.getContext("2d");
    pen.globalCompositeOperation = tool === "erase" ? "destination-out" : "source-over";
    pen.strokeStyle = PAINT;
    pen.lineCap = "round";
    pen.lineWidth = 2 * radius();
    pen.beginPath();
    pen.moveTo(from[0] * mask.width, from[1] * mask.height);
    pen.lineTo(to[0] * mask.width + 0.01, to[1] * mask.height);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    painted = true;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!picture) return;
    event.preventDefault();
    remember();
    const at = place(event);
    if (tool === "on" || tool === "beside") {
      points.push([...at, tool === "on" && event.button !== 2 ? 1 : 0]);
      draw();
      send();
    } else {
      canvas.setPointerCapture(event.pointerId);
      stroke = at;
      dab(at, at);
      draw();
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!stroke) return;
    const at = place(event);
    dab(stroke, at);
    stroke = at;
    draw();
  });
  const lift = () => {
    if (!stroke) return;
    stroke = null;
    send();
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  buttons.forEach((button) => button.addEventListener("click", () => choose(button.dataset.tool)));
  find(".undo").addEventListener("click", () => {
    const before = history.pop();
    if (!before) return;
    points = before.points;
    painted = before.painted;
    mask.getContext("2d").putImageData(before.mask, 0, 0);
    draw();
    send();
  });
  find(".wipe").addEventListener("click", () => {
    if (!picture) return;
    remember();
    points = [];
    painted = false;
    mask.getContext("2d").clearRect(0, 0, mask.width, mask.height);
    draw();
    send();
  });

  // A file that is dropped on the picture goes to the upload button beside it.
  const input = () => document.querySelector(`input[type=file]:has(+ #${stage.dataset.upload})`);
  stage.addEventListener("dragover", (event) => event.preventDefault());
  stage.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!input() || !event.dataTransfer.files.length) return;
    input().files = event.dataTransfer.files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  });

  choose(tool);
  watch("value", take);
  if (props.value) take();
})();
