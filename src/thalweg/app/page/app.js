// The page: which model, which panel, and what each says of itself.

import { $, $$, ask, cancel, make, options, sliders } from "/page.js";
import * as plane from "/plane.js";
import * as pictures from "/pictures.js";
import * as scores from "/scores.js";

const PANELS = { landscape: plane, draw: pictures.draw, fill: pictures.fill, repair: pictures.repair, detect: scores.detect, watch: scores.watch };
const state = { about: null, entry: null, panel: "landscape" };

function show(panel) {
  state.panel = panel;
  for (const tab of $$("#tabs button")) tab.setAttribute("aria-selected", tab.dataset.panel === panel);
  for (const section of $$("section")) {
    section.hidden = section.id !== panel;
    if (section.hidden) cancel(section, "cancelled, as you left");
  }
  const words = state.about.panels[panel], how = $("#how"), entry = state.entry;
  $("h2", how).textContent = words.title;
  $("p", how).textContent = words.sentence;
  $(".equations", how).replaceChildren(...words.equations.map(line => make("p", line)));
  $(".by", how).textContent = `by ${words.by}`;
  const box = entry ? entry.box : [];
  $("details", how).classList.toggle("hidden", !box.length);
  $("summary", how).textContent = entry ? `How ${entry.name} is trained` : "";
  $("details .what", how).textContent = entry ? entry.title : "";
  $("details pre", how).textContent = box.join("\n");
  $(".doc", how).textContent = entry && entry.page ? `More in ${entry.page}.` : "";
  for (const [name, module] of Object.entries(PANELS)) if (module.shown) module.shown(name === panel && live(name));
  history.replaceState(null, "", `#${panel}`);
}

const live = panel => panel === "landscape" || (state.entry && !state.entry.panels[panel]);

// a panel that has nothing for this model says why, in one sentence, in place of its controls
function enter(entry) {
  state.entry = entry;
  $$("section").forEach(section => cancel(section));
  $("#title").textContent = entry ? [entry.title.replace(/\.$/, ""), entry.shape.length ? `${entry.data}, ${entry.shape.join("×")}` : ""].filter(Boolean).join(" · ") : "No model is shown: name one, thalweg app runs/mine";
  for (const [name, module] of Object.entries(PANELS)) {
    const section = $(`#${name}`), why = entry ? entry.panels[name] : name === "landscape" ? "" : "No model is shown here.";
    $(".why", section)?.remove();
    const open = live(name);
    for (const part of section.children) part.classList.toggle("hidden", !open);
    if (why) section.prepend(make("p", why, open ? "why note" : "why"));
    $(`#tabs [data-panel=${name}]`).classList.toggle("off", !open);
    if (open) module.enter(section, entry, state.about);
  }
  show(state.panel);
}

async function start() {
  state.about = await ask("/api/about");
  const { entries, panels } = state.about;
  $("#tabs").append(...Object.entries(panels).map(([name, words]) => {
    const tab = make("button", words.title);
    Object.assign(tab, { type: "button", role: "tab" });
    tab.dataset.panel = name;
    tab.addEventListener("click", () => show(name));
    return tab;
  }));
  sliders();
  for (const [name, module] of Object.entries(PANELS)) module.begin($(`#${name}`));
  options($("#model"), entries.map(entry => [entry.name, entry.name]));
  $("#model").addEventListener("change", event => enter(entries.find(entry => entry.name === event.target.value)));
  $(".which").classList.toggle("hidden", !entries.length);
  const wanted = location.hash.slice(1);
  const first = entries.length ? Object.keys(panels).find(name => !entries[0].panels[name]) : "landscape";
  state.panel = wanted in PANELS ? wanted : first || "landscape";
  enter(entries[0] || null);
  document.body.dataset.ready = "yes";
}

start().catch(error => document.body.append(make("p", error.message, "why")));
