// Draw, Fill in and Repair: pictures that a model makes, completes and mends.

import { $, $$, colour, crisp, figure, make, options, pictures, read, reveal, sliders, values, work } from "/page.js";

const labels = (select, entry, each) => {
  const classes = entry.classes.map(name => [name, name]);
  options(select, [["", entry.classes.length ? "any" : "the model"], ...(each && classes.length ? [["each", "one of each"]] : []), ...classes], each && classes.length ? "each" : "");
  select.closest("label").classList.toggle("hidden", each && !classes.length);
};
const OTHERS = 3; // labels that are composed with the first one, at most
const took = found => `${found.seconds.toFixed(1)} s`;
const hide = (section, kind, hidden) => $(`.${kind}`, section).classList.toggle("hidden", hidden);

function table(columns, rows) {
  const head = make("tr", columns.map(name => make("th", name)));
  return make("div", [make("table", [head, ...rows.map(row => make("tr", row.map(cell => make("td", cell))))])], "wide");
}

function scatter(points, columns) {
  const canvas = make("canvas", [], "map"), side = 512, context = crisp(canvas, side, side);
  const [low, high] = [0, 1].map(axis => points.map(point => point[axis])).reduce(([low, high], all) => [[...low, Math.min(...all)], [...high, Math.max(...all)]], [[], []]);
  const reach = Math.max(high[0] - low[0], high[1] - low[1], 1e-6) * 1.1, middle = [0, 1].map(i => (low[i] + high[i]) / 2);
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, side, side);
  context.fillStyle = colour("--accent");
  context.globalAlpha = 0.65;
  for (const [x, y] of points) { context.beginPath(); context.arc(side * (0.5 + (x - middle[0]) / reach), side * (0.5 - (y - middle[1]) / reach), 3, 0, 7); context.fill(); }
  const [across, up] = columns.map((name, i) => `${name} from ${low[i].toPrecision(3)} to ${high[i].toPrecision(3)}`);
  return make("figure", [canvas, make("figcaption", `${across} to the right, ${up} upwards`)], "board");
}

export const draw = {
  begin(section) {
    const form = $("form", section);
    const go = () => work(section, "drawing", async asking => {
      const asked = values(form), entry = this.entry, also = this.also(section);
      const found = await asking("/api/draw", { ...asked, also, model: entry.name });
      const each = asked.label === "each", label = i => each ? entry.classes[i % entry.classes.length] : "";
      const result = $(".result", section);
      result.replaceChildren(
        found.pictures ? pictures(found.pictures.map((data, i) => figure(data, label(i)))) : found.points ? scatter(found.points, found.columns) : table(found.columns, found.rows));
      result.classList.toggle("fives", each && entry.classes.length % 5 === 0);
      reveal(result);
      const said = `${(found.pictures || found.points || found.rows).length} samples, seed ${asked.seed ?? 0}, in ${took(found)}`;
      return found.equation ? `${said}, by ${found.equation}` : said;
    });
    form.addEventListener("submit", event => { event.preventDefault(); go(); });
    form.elements.next.addEventListener("click", () => { form.elements.seed.value = Number(form.elements.seed.value) + 1; go(); });
    form.elements.label.addEventListener("change", () => this.rest(section));
    form.elements.add.addEventListener("click", () => this.add(section));
  },
  enter(section, entry) {
    this.entry = entry;
    const form = $("form", section), { guidance, count } = form.elements;
    labels(form.elements.label, entry, true);
    hide(section, "steps", !entry.steps);
    hide(section, "count", entry.reads !== "pictures");
    count.disabled = entry.reads !== "pictures";
    if (entry.classes.length && entry.classes.length <= 18) count.value = entry.classes.length;
    guidance.min = entry.concepts ? -5 : 0;
    if (entry.guidance !== null) guidance.value = entry.guidance;
    form.elements.steps.value = "";
    for (const slider of [guidance, count]) slider.dispatchEvent(new Event("input"));
    for (const part of [".concepts", ".result", ".status"]) $(part, section).replaceChildren();
    this.rest(section);
  },
  // one more label to compose, with its guidance
  add(section) {
    const select = make("select"), slider = make("input", []), remove = make("button", "×", "remove");
    options(select, this.entry.classes.map(name => [name, name]));
    select.setAttribute("aria-label", "and this label");
    remove.setAttribute("aria-label", "leave this label out");
    remove.type = "button";
    Object.assign(slider, { type: "range", min: -5, max: 5, step: 0.25, value: 1 });
    const row = make("div", [make("label", ["and", make("span", [select, remove])]), make("label", ["guidance", slider, make("output")])], "concept");
    remove.addEventListener("click", () => { row.remove(); this.rest(section); });
    $(".concepts", section).append(row);
    sliders(row);
    this.rest(section);
  },
  also: section => $$(".concept", section).map(row => ({ label: $("select", row).value, guidance: Number($("input", row).value) })),
  rest(section) {
    hide(section, "guidance", this.entry.guidance === null || !$("form", section).elements.label.value);
    hide(section, "more", !this.entry.concepts);
    $("[name=add]", section).disabled = $$(".concept", section).length >= OTHERS;
  },
};

// where the picture to work on comes from: a file, or a sample
async function source(form) {
  const file = form.elements.picture.files[0];
  return file ? { picture: await read(file), name: file.name } : { label: form.elements.label.value };
}

const WAYS = { posterior: "given the pixels", constraint: "put back, quick", search: "search for a start" };

export const fill = {
  begin(section) {
    const form = $("form", section), canvas = $("canvas.brush", section);
    this.section = section;
    const fetchOne = () => work(section, "taking a picture", async asking => {
      const found = await asking("/api/picture", { ...(await source(form)), seed: Number(form.elements.seed.value), model: this.entry.name });
      await this.load(found.picture);
      return "";
    });
    form.elements.fetch.addEventListener("click", () => { form.elements.picture.value = ""; fetchOne(); });
    form.elements.picture.addEventListener("change", () => { if (form.elements.picture.files.length) fetchOne(); });
    form.elements.clear.addEventListener("click", () => { this.mask.forEach(row => row.fill(0)); this.paint(); });
    form.elements.half.addEventListener("click", () => { this.mask.forEach((row, i) => row.fill(i >= this.mask.length / 2 ? 1 : 0)); this.paint(); });
    form.addEventListener("submit", event => { event.preventDefault(); this.go(section, form); });
    const stroke = event => {
      if (!this.picture || !(event.buttons || event.type === "pointerdown")) return;
      const box = canvas.getBoundingClientRect(), size = Number(form.elements.brush.value) / 2, border = 1;
      const x = (event.clientX - box.left - border) / this.factor, y = (event.clientY - box.top - border) / this.factor;
      this.mask.forEach((row, i) => row.forEach((_, j) => { if (Math.hypot(j + 0.5 - x, i + 0.5 - y) <= Math.max(size, 0.71)) row[j] = 1; }));
      this.paint();
      event.preventDefault();
    };
    canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); stroke(event); });
    canvas.addEventListener("pointermove", stroke);
  },
  enter(section, entry) {
    this.entry = entry;
    const form = $("form", section);
    labels(form.elements.label, entry, false);
    options(form.elements.way, entry.ways.map(way => [way, WAYS[way]]));
    this.picture = null;
    this.resize();
    $(".result", section).replaceChildren();
    $(".status", section).textContent = "";
  },
  resize() {
    $("figcaption", this.section).textContent = "no picture yet: take a sample, or choose your own";
    const [, height, width] = this.entry.shape, canvas = $("canvas.brush", this.section);
    this.factor = Math.max(1, Math.floor(Math.min(288, window.innerWidth - 40) / Math.max(height, width)));
    [canvas.width, canvas.height] = [width * this.factor, height * this.factor];
    this.mask = Array.from({ length: height }, () => new Array(width).fill(0));
  },
  async load(data) {
    const image = new Image();
    image.src = data;
    await image.decode();
    this.picture = image;
    this.data = data;
    this.mask.forEach(row => row.fill(0));
    $("figcaption", this.section).textContent = "paint over what is to be filled in";
    this.paint();
  },
  paint() {
    if (!this.picture) return;
    const canvas = $("canvas.brush", this.section), context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(this.picture, 0, 0, canvas.width, canvas.height);
    context.fillStyle = "rgba(255, 140, 40, .82)";
    this.mask.forEach((row, i) => row.forEach((on, j) => { if (on) context.fillRect(j * this.factor, i * this.factor, this.factor, this.factor); }));
    canvas.dataset.hidden = this.mask.flat().reduce((sum, one) => sum + one, 0);
  },
  go: (section, form) => work(section, "filling in", async asking => {
    if (!fill.picture) throw new Error("there is no picture yet: take a sample, or choose one");
    const { completions, seed, way } = values(form);
    const found = await asking("/api/fill", { completions, seed, way, mask: fill.mask, picture: fill.data, name: "the picture", model: fill.entry.name });
    $(".result", section).replaceChildren(pictures([
      figure(found.given, "as it was"), figure(found.left, "what was left"), ...found.pictures.map((data, i) => figure(data, `completion ${i + 1}`))]));
    reveal($(".result", section));
    return `${found.pictures.length} completions in ${took(found)}; pixels that were not painted over are unchanged`;
  }),
};

const KINDS = { noise: "noise", blur: "blur", grey: "grey, colours lost", coarse: "coarse pixels" };

export const repair = {
  begin(section) {
    const form = $("form", section);
    form.elements.kind.addEventListener("change", () => this.rest(section));
    form.elements.picture.addEventListener("change", () => this.rest(section));
    for (const name of ["label", "seed"]) form.elements[name].addEventListener("change", () => { form.elements.picture.value = ""; this.rest(section); });
    form.addEventListener("submit", event => {
      event.preventDefault();
      work(section, "repairing", async asking => {
        const { kind, std, width, factor, completions, seed, already } = values(form), from = await source(form);
        const found = await asking("/api/repair", {
          ...from, kind, strength: kind === "noise" ? std : width, factor, completions, seed, already: already && !!from.picture, model: this.entry.name });
        const given = found.given ? [figure(found.given, "as it was")] : [];
        $(".result", section).replaceChildren(pictures([
          ...given, figure(found.spoilt, "spoilt"), ...found.pictures.map((data, i) => figure(data, found.pictures.length > 1 ? `repaired ${i + 1}` : "repaired"))]));
        reveal($(".result", section));
        return `repaired in ${took(found)}`;
      });
    });
  },
  enter(section, entry) {
    this.entry = entry;
    const form = $("form", section), [, height, width] = entry.shape;
    labels(form.elements.label, entry, false);
    options(form.elements.kind, entry.kinds.map(kind => [kind, KINDS[kind]]));
    options(form.elements.factor, [2, 4, 7].filter(n => height % n === 0 && width % n === 0).map(n => [String(n), `${n} × ${n}`]));
    $(".result", section).replaceChildren();
    $(".status", section).textContent = "";
    this.rest(section);
  },
  rest(section) {
    const form = $("form", section), kind = form.elements.kind.value;
    for (const one of ["noise", "blur", "coarse"]) hide(section, one, one !== kind);
    hide(section, "already", !["noise", "blur"].includes(kind) || !form.elements.picture.files.length);
    hide(section, "several", kind === "noise");
  },
};
