// What all panels share: asking the server, saying how long it takes and what is wrong, sliders, pictures in whole pixels.

export const $ = (selector, home = document) => home.querySelector(selector);
export const $$ = (selector, home = document) => [...home.querySelectorAll(selector)];

// an element by name, with text or children; never markup from outside
export function make(name, content = "", kind = "") {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  element.append(...(Array.isArray(content) ? content : [String(content)]));
  return element;
}

const LARGEST = 48 * 2 ** 20; // as the server's

// what was asked for is not wanted any more: it was cancelled, asked anew, or left
export class Cancelled extends Error {}

// an aborted request hangs up, which ends its computation on the server
export async function ask(path, words = {}, signal = null) {
  const body = JSON.stringify(words);
  if (body.length > LARGEST) throw new Error(`too much at once: ${Math.round(body.length / 2 ** 20)} MiB, at most ${LARGEST / 2 ** 20} MiB; drop fewer or smaller files`);
  let answer, found;
  try {
    answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
    found = await answer.json();
  } catch {
    if (signal?.aborted) throw new Cancelled();
    throw new Error("the server does not answer: is thalweg app still running?");
  }
  if (!answer.ok) throw new Error(found.error || `the server answers ${answer.status}`);
  return found;
}

const running = new Map(); // what each panel computes: a section's AbortController

// end what a panel computes; `said` is what its status then says
export function cancel(section, said = "") {
  const control = running.get(section);
  if (!control) return;
  running.delete(section);
  control.abort();
  $(".busy", section).classList.add("hidden");
  section.classList.remove("working");
  $(".status", section).textContent = said;
}

// run a panel's work, in place of what it is doing: seconds and those before it are counted, and what goes wrong is said in its place.
// `task` is given a function to ask the server by, whose requests end when the work is cancelled
export async function work(section, what, task) {
  cancel(section);
  const control = new AbortController(), busy = $(".busy", section), status = $(".status", section), started = performance.now();
  const ticket = [...crypto.getRandomValues(new Uint32Array(3))].join("-");
  let before = 0;
  const tick = () => {
    const seconds = Math.round((performance.now() - started) / 1000);
    $("span", busy).textContent = before ? `${before} before you … ${seconds} s` : `${what} … ${seconds} s`;
  };
  const look = async () => {
    tick();
    const found = await ask("/api/turn", { ticket }, control.signal).catch(() => null);
    if (found) before = found.before || 0;
  };
  running.set(section, control);
  $("[name=cancel]", busy).onclick = () => cancel(section, `cancelled after ${Math.round((performance.now() - started) / 1000)} s`);
  status.classList.remove("wrong");
  status.textContent = "";
  section.classList.add("working");
  busy.classList.remove("hidden");
  tick();
  const timer = setInterval(look, 500);
  try {
    const said = (await task((path, words) => ask(path, { ...words, ticket }, control.signal))) || "";
    if (running.get(section) === control) status.textContent = said;
  } catch (error) {
    if (!(error instanceof Cancelled)) wrong(section, error);
  } finally {
    clearInterval(timer);
    if (running.get(section) === control) {
      running.delete(section);
      busy.classList.add("hidden");
      section.classList.remove("working");
      section.dispatchEvent(new Event("done"));
    }
  }
}

// on a narrow screen what has come may lie below it
export function reveal(element) {
  if (element.getBoundingClientRect().top > window.innerHeight - 120) element.scrollIntoView({ behavior: "smooth", block: "nearest" });
}

export function wrong(section, error) {
  const status = $(".status", section);
  status.textContent = error.message;
  status.classList.add("wrong");
}

// the values of a form, as numbers where they are numbers; sliders of powers as the power
export function values(form) {
  const found = {};
  for (const field of form.elements) {
    if (!field.name || field.disabled || field.type === "file" || field.type === "submit" || field.type === "button") continue;
    if (field.type === "checkbox") found[field.name] = field.checked;
    else if (field.type === "range") found[field.name] = reading(field);
    else if (field.type === "number") found[field.name] = field.value === "" ? null : Number(field.value);
    else found[field.name] = field.value;
  }
  return found;
}

const reading = field => field.dataset.power ? Number((field.dataset.power ** field.value).toPrecision(2)) : Number(field.value);

export function sliders(home = document) {
  for (const field of $$("input[type=range]", home)) {
    const show = () => { const output = $("output", field.parentElement); if (output) output.textContent = minus(reading(field)); };
    field.addEventListener("input", show);
    show();
  }
}

export function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => {
    const option = make("option", text);
    option.value = value;
    return option;
  }));
  if (chosen !== undefined && pairs.some(([value]) => value === chosen)) select.value = chosen;
}

// a picture enlarged by a whole factor, so that its pixels stay square and sharp
export function figure(data, caption, target = 112, kind = "") {
  const image = make("img", []);
  image.alt = caption;
  image.addEventListener("load", () => {
    const factor = Math.max(1, Math.floor(target / Math.max(image.naturalWidth, image.naturalHeight)));
    image.width = image.naturalWidth * factor;
    image.height = image.naturalHeight * factor;
    holder.style.width = `${image.width + 2}px`;
  });
  image.src = data;
  const holder = make("figure", caption ? [image, make("figcaption", caption)] : [image], kind);
  return holder;
}

export const pictures = figures => make("div", figures, "pictures");

export function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
export const minus = text => String(text).replaceAll("-", "−");
export const short = value => minus(Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(1) : Number(value.toPrecision(4)));

// a canvas drawn at the screen's own resolution; gives its context and size in CSS pixels
export function crisp(canvas, width, height) {
  const ratio = Math.max(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.clearRect(0, 0, width, height);
  context.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  return context;
}
