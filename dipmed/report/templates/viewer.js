"use strict";
(async () => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const at = (id) => document.getElementById(id);
  const viewer = at("viewer"), slider = at("slice");
  const last = data.slices.length - 1, size = data.rows * data.columns;
  const height = data.rows * data.rowMm, width = data.columns * data.columnMm;
  const colours = [[0, 0, 0], [80, 18, 123], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

  // 16 bits a voxel, little-endian, in the format of zlib
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const view = new DataView(await new Response(stream).arrayBuffer());
    return Uint16Array.from({ length: view.byteLength / 2 }, (_, index) => view.getUint16(2 * index, true));
  }

  const figures = [...viewer.querySelectorAll("figure")];
  const shared = { window: [...data.layers[0].window], start: data.layers[0].window };
  const groups = new Map();
  // images share one window, and so do the maps of a group
  function greyOf(layer) {
    if (layer.kind === "image") return shared;
    const own = { window: [...layer.window], start: layer.window };
    if (!layer.group) return own;
    if (!groups.has(layer.group)) groups.set(layer.group, own);
    return groups.get(layer.group);
  }
  const layers = await Promise.all(data.layers.map(async (layer, index) => ({
    ...layer,
    voxels: await unpack(layer.voxels),
    canvas: figures[index].querySelector("canvas"),
    note: figures[index].querySelector("output"),
    grey: greyOf(layer),
    slice: new OffscreenCanvas(data.columns, data.rows),
  })));
  const state = { slice: last >> 1, zoom: 1, x: 0.5, y: 0.5 };
  // the sliders go from the least to the largest value of the images
  const images = layers.filter((layer) => layer.kind === "image");
  const low = Math.min(...images.map((layer) => layer.low));
  const range = Math.max(...images.map((layer) => layer.low + 65535 * layer.step)) - low || 1;
  const digits = (value) => Number(value.toPrecision(3)).toString();

  function colourTable(layer) {
    const table = new Uint32Array(65536), [black, white] = layer.grey.window;
    const bytes = new Uint8ClampedArray(table.buffer);
    for (let step = 0; step < 65536; step++) {
      const share = Math.min(1, Math.max(0, (layer.low + step * layer.step - black) / (white - black)));
      const place = Math.min(share * 4, 3.9999), from = Math.floor(place);
      for (let channel = 0; channel < 3; channel++) {
        const [a, b] = [colours[from][channel], colours[from + 1][channel]];
        bytes[4 * step + channel] = layer.kind === "image" ? 255 * share : a + (b - a) * (place - from);
      }
      bytes[4 * step + 3] = 255;
    }
    return table;
  }

  function draw() {
    for (const layer of layers) {
      const { canvas } = layer, ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(canvas.clientWidth * ratio);
      canvas.height = Math.round((canvas.width * height) / width);
      const table = colourTable(layer), pixels = new Uint32Array(size);
      const start = state.slice * size;
      for (let index = 0; index < size; index++) pixels[index] = table[layer.voxels[start + index]];
      const picture = new ImageData(new Uint8ClampedArray(pixels.buffer), data.columns, data.rows);
      layer.slice.getContext("2d").putImageData(picture, 0, 0);
      const context = canvas.getContext("2d");
      const wide = canvas.width * state.zoom, high = canvas.height * state.zoom;
      context.imageSmoothingEnabled = state.zoom < 4;  // from there on, voxels are shown as they are
      layer.note.textContent = layer.grey.window.map(digits).join(" to ");
      context.drawImage(layer.slice, canvas.width / 2 - state.x * wide, canvas.height / 2 - state.y * high, wide, high);
    }
    const { label, part } = data.slices[state.slice], [black, white] = shared.window;
    slider.value = state.slice;
    at("place").textContent = `${label} (${state.slice + 1} of ${last + 1})`;
    at("centre").value = (1000 * ((black + white) / 2 - low)) / range;
    at("width").value = (1000 * (white - black)) / range;
    for (const section of document.querySelectorAll("[data-part]")) section.hidden = Number(section.dataset.part) !== part;
  }

  const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
  const go = (slice) => { state.slice = clamp(slice, 0, last); draw(); };
  const zoom = (factor) => { state.zoom = clamp(state.zoom * factor, 1, 32); move(0, 0); };
  function move(right, down) {
    const half = 0.5 / state.zoom;
    state.x = clamp(state.x - right / state.zoom, half, 1 - half);
    state.y = clamp(state.y - down / state.zoom, half, 1 - half);
    draw();
  }
  function setWindow(grey, centre, span) {
    const least = range / 65535;
    grey.window = [centre - Math.max(span, least) / 2, centre + Math.max(span, least) / 2];
    draw();
  }
  function reset() {
    Object.assign(state, { zoom: 1, x: 0.5, y: 0.5 });
    for (const { grey } of layers) grey.window = [...grey.start];
    draw();
  }

  const keys = {
    ArrowUp: () => go(state.slice - 1), ArrowLeft: () => go(state.slice - 1), PageUp: () => go(state.slice - 10),
    ArrowDown: () => go(state.slice + 1), ArrowRight: () => go(state.slice + 1), PageDown: () => go(state.slice + 10),
    Home: () => go(0), End: () => go(last), "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), r: reset,
  };
  viewer.addEventListener("keydown", (event) => {
    if (event.target.type === "range" || event.ctrlKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  slider.addEventListener("input", () => go(Number(slider.value)));
  for (const id of ["centre", "width"]) {
    at(id).addEventListener("input", () => {
      setWindow(shared, low + (range * at("centre").value) / 1000, (range * at("width").value) / 1000);
    });
  }
  at("reset").addEventListener("click", reset);

  for (const { canvas, grey } of layers) {
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && last === 0) return;
      event.preventDefault();
      if (event.ctrlKey) zoom(event.deltaY < 0 ? 1.25 : 0.8);
      else go(state.slice + Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1 && event.shiftKey) {
        move(event.movementX / canvas.clientWidth, event.movementY / canvas.clientHeight);
      } else if (event.buttons & 1) {
        const [black, white] = grey.window, step = (grey.start[1] - grey.start[0]) / 300;
        setWindow(grey, (black + white) / 2 + event.movementY * step, white - black + event.movementX * step);
      }
      const x = state.x + (event.offsetX / canvas.clientWidth - 0.5) / state.zoom;
      const y = state.y + (event.offsetY / canvas.clientHeight - 0.5) / state.zoom;
      const index = state.slice * size + Math.floor(clamp(y, 0, 0.9999) * data.rows) * data.columns
        + Math.floor(clamp(x, 0, 0.9999) * data.columns);
      for (const layer of layers) layer.note.textContent = `here ${digits(layer.low + layer.voxels[index] * layer.step)}`;
    });
    canvas.addEventListener("pointerleave", draw);
    canvas.addEventListener("dblclick", reset);
  }
  window.addEventListener("resize", draw);
  viewer.focus({ preventScroll: true });
  draw();
  viewer.dataset.ready = "yes";
})();
