// Landscape: a map of an energy in the plane, and chains that walk on it while the page asks for more of their steps.

import { $, Cancelled, ask, crisp, options, short, values, work, wrong } from "/page.js";

// deep blue for low energy to a light sand for high: a palette that also reads in grey
const STOPS = [[13, 27, 62], [24, 73, 116], [45, 125, 140], [116, 173, 146], [197, 207, 167], [243, 238, 222]];
const BANDS = 12; // contour lines, one a nat
const GAP = 60; // milliseconds between two frames
let home, map = null, chains = { x: null, done: 0, seed: 0 }, frames = [], walking = false, timer = null, open = false, control = null;

const shade = value => {
  const at = (value / 255) * (STOPS.length - 1), low = Math.min(STOPS.length - 2, Math.floor(at)), part = at - low;
  return STOPS[low].map((one, i) => Math.round(one + part * (STOPS[low + 1][i] - one)));
};

export function begin(section) {
  home = section;
  const form = $("form", section);
  form.addEventListener("submit", event => { event.preventDefault(); walking ? pause() : walk(); });
  form.elements.again.addEventListener("click", anew);
  for (const name of ["first", "second", "weight1", "weight2"]) form.elements[name].addEventListener("change", draw);
  for (const name of ["sampler", "chains"]) form.elements[name].addEventListener("change", name === "chains" ? anew : rest);
  const bar = $(".scale canvas", section), context = bar.getContext("2d");
  for (let i = 0; i < 255; i++) { context.fillStyle = `rgb(${shade(i)})`; context.fillRect(i, 0, 1, 1); }
}

export function enter(section, entry, about) {
  const form = $("form", section), names = about.energies.map(name => [name, name]);
  const own = entry && !entry.panels.landscape ? entry.name : null, before = form.elements.first.value;
  options(form.elements.first, names, own || (about.energies.includes(before) ? before : "8gaussians"));
  options(form.elements.second, [["none", "none"], ...names], "none");
  rest();
  if (open) draw();
}

export function shown(now) {
  open = now;
  if (open && !map) draw();
  if (!open) pause();
}

// a knob that does nothing is not shown
function rest() {
  const { second, sampler } = values($("form", home));
  $("[name=weight2]", home).closest("label").classList.toggle("hidden", second === "none");
  $("[name=noise]", home).closest("label").classList.toggle("hidden", sampler !== "langevin");
}

function draw() {
  pause();
  rest();
  const { first, second, weight1, weight2 } = values($("form", home));
  return work(home, "looking at the energy", async asking => {
    map = await asking("/api/map", { first, second, weight1, weight2 });
    const bytes = Uint8Array.from(atob(map.map), c => c.charCodeAt(0));
    const small = document.createElement("canvas");
    small.width = small.height = map.cells;
    const image = new ImageData(map.cells, map.cells);
    bytes.forEach((value, i) => image.data.set([...shade(value), 255], 4 * i));
    small.getContext("2d").putImageData(image, 0, 0);
    map.small = small;
    map.lines = contours(bytes, map.cells);
    $(".scale", home).lastElementChild.textContent = `${map.depth} nats above the lowest`;
    return spread(asking);
  });
}

// segments of contour lines by marching squares, in units of the map's side
function contours(bytes, cells) {
  const segments = [];
  for (let band = 1; band < BANDS; band++) {
    const level = (255 * band) / BANDS;
    for (let row = 0; row < cells - 1; row++) for (let column = 0; column < cells - 1; column++) {
      const at = row * cells + column, corners = [bytes[at], bytes[at + 1], bytes[at + cells + 1], bytes[at + cells]];
      const cuts = [];
      for (let side = 0; side < 4; side++) {
        const a = corners[side], b = corners[(side + 1) % 4];
        if ((a < level) === (b < level)) continue;
        const t = (level - a) / (b - a), [x, y, dx, dy] = [[0, 0, 1, 0], [1, 0, 0, 1], [1, 1, -1, 0], [0, 1, 0, -1]][side];
        cuts.push([(column + 0.5 + x + t * dx) / cells, (row + 0.5 + y + t * dy) / cells]);
      }
      for (let i = 0; i + 1 < cuts.length; i += 2) segments.push([cuts[i], cuts[i + 1]]);
    }
  }
  return segments;
}

function anew() {
  pause();
  return work(home, "spreading chains", spread);
}

// chains at their start; what the status says of them
async function spread(asking) {
  chains = { x: null, done: 0, seed: Math.floor(Math.random() * 1e6) };
  const found = await asking("/api/walk", { ...wanted(), steps: 1 });
  frames = [found.frames[0]];
  chains.x = found.frames[0];
  paint();
  return "Chains start evenly spread. Walk lets them move.";
}

function wanted() {
  const { first, second, weight1, weight2, sampler, step, noise, temperature, chains: count } = values($("form", home));
  return { first, second, weight1, weight2, sampler, step, noise, temperature, chains: count, x: chains.x, done: chains.done, seed: chains.seed };
}

// some more steps of the chains; they live here, the server keeps nothing
async function more(steps) {
  const found = await ask("/api/walk", { ...wanted(), steps }, control.signal);
  frames.push(...found.frames.slice(1));
  chains.x = found.frames.at(-1);
  chains.done = found.done;
  const parts = [`${chains.done} steps`, `mean energy of the chains ${short(found.energy)} nats`];
  if (found.exact !== null) parts.push(`of exact draws ${short(found.exact)}`);
  if (found.accepted !== null) parts.push(`${Math.round(100 * found.accepted)} % accepted`);
  $(".status", home).classList.remove("wrong");
  $(".status", home).textContent = parts.join(" · ");
}

async function walk() {
  if (!map || home.classList.contains("working")) return;
  walking = true;
  control = new AbortController();
  $("[type=submit]", home).textContent = "Pause";
  home.dataset.walking = "yes";
  frames = [];
  let asking = false;
  const turn = async () => {
    if (!walking) return;
    if (frames.length < 20 && !asking) {
      asking = true;
      more(25).catch(error => { if (!(error instanceof Cancelled)) { pause(); wrong(home, error); } }).finally(() => { asking = false; });
    }
    if (frames.length > 1) frames.shift();
    paint();
    timer = setTimeout(turn, GAP);
  };
  turn();
}

function pause() {
  walking = false;
  control?.abort();
  clearTimeout(timer);
  if (!home) return;
  delete home.dataset.walking;
  $("[type=submit]", home).textContent = "Walk";
}

function paint() {
  if (!map) return;
  const canvas = $("canvas.map", home), side = 512, context = crisp(canvas, side, side), [left, right, bottom, top] = map.box;
  context.imageSmoothingQuality = "high";
  context.drawImage(map.small, 0, 0, side, side);
  context.strokeStyle = "rgba(255, 255, 255, .28)";
  context.lineWidth = 0.8;
  context.beginPath();
  for (const [[ax, ay], [bx, by]] of map.lines) { context.moveTo(ax * side, ay * side); context.lineTo(bx * side, by * side); }
  context.stroke();
  const states = frames.length ? frames[0] : chains.x || [];
  context.fillStyle = "#ff9d3b";
  context.strokeStyle = "rgba(40, 20, 0, .75)";
  for (const [x, y] of states) {
    context.beginPath();
    context.arc(((x - left) / (right - left)) * side, ((top - y) / (top - bottom)) * side, 3.4, 0, 7);
    context.fill();
    context.stroke();
  }
  canvas.dataset.shown = states.length;
}
