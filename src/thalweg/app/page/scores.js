// Detect: scores of uploads among those of held-out examples. Watch: a training as its folder shows it.

import { $, ask, colour, crisp, figure, make, pictures, read, reveal, short, values, work, wrong } from "/page.js";

export const detect = {
  begin(section) {
    const form = $("form", section), drop = $(".drop", section);
    this.section = section;
    form.addEventListener("submit", event => event.preventDefault());
    form.elements.files.addEventListener("change", () => { this.upload([...form.elements.files.files]); form.elements.files.value = ""; });
    form.elements.made.addEventListener("click", () => { this.last = { made: true }; this.go(); });
    form.elements.alpha.addEventListener("change", () => { if (this.last) this.go(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (this.found) this.histogram(this.found); });
    drop.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", event => { event.preventDefault(); drop.classList.remove("over"); this.upload([...event.dataTransfer.files]); });
  },
  enter(section, entry) {
    this.entry = entry;
    this.last = this.found = null;
    const table = entry.reads === "table";
    $(".drop span", section).textContent = table ? "Drop a .csv, or choose one" : "Drop pictures, or choose some";
    $("[name=made]", section).parentElement.classList.toggle("hidden", !entry.made);
    $("[name=files]", section).accept = table ? ".csv,.tsv" : "image/*";
    for (const part of [".verdict", ".key", ".result", ".status"]) $(part, section).replaceChildren();
    $(".histogram", section).classList.add("hidden");
  },
  async upload(files) {
    if (!files.length) return;
    try {
      this.last = { files: await Promise.all(files.map(async file => ({ name: file.name, data: await read(file) }))) };
      await this.go();
    } catch (error) {
      wrong(this.section, error);
    }
  },
  go() {
    const section = this.section;
    return work(section, "scoring", async asking => {
      const found = await asking("/api/detect", { ...this.last, alpha: values($("form", section)).alpha, model: this.entry.name });
      $(".verdict", section).textContent = `${found.outliers} of ${found.count} ${found.outliers === 1 ? "is an outlier" : "are outliers"}`;
      this.found = found;
      this.histogram(found);
      $(".key", section).replaceChildren(make("b", [], "held"), `${found.held_out} held-out examples`, make("b", [], "seen"), "typical", make("b", [], "flag"), "outlier");
      const seen = found.rows.map(row => ({ ...row, verdict: row.outlier ? "outlier" : "typical" }));
      $(".result", section).replaceChildren(seen.length && seen[0].picture ? pictures(seen.map(row => this.card(row, found.score))) : this.table(seen, found));
      reveal($(".verdict", section));
      return `At α = ${found.alpha}, ${short(100 * found.alpha)} % of typical items are called outliers. Scored in ${found.seconds.toFixed(1)} s.`;
    });
  },
  card(row, score) {
    const card = figure(row.picture, "", 112, row.outlier ? "flagged" : "");
    card.append(make("figcaption", [make("b", row.verdict), make("br"), row.name, make("br"), `${score} ${short(row.score)}`, make("br"), `p ${short(row.p)}`]));
    return card;
  },
  table(rows, found) {
    const head = make("tr", ["row", `${found.score}, nats`, "p", "verdict"].map(name => make("th", name)));
    const lines = rows.map(row => make("tr", [make("td", row.name), make("td", short(row.score)), make("td", short(row.p)), make("td", row.verdict, row.outlier ? "flagged" : "")]));
    const more = found.count > rows.length ? [make("p", `the ${rows.length} strangest of ${found.count} rows`, "key")] : [];
    return make("div", [...more, make("table", [head, ...lines])], "wide");
  },
  histogram(found) {
    const canvas = $(".histogram", this.section);
    canvas.classList.remove("hidden");
    const width = Math.min(canvas.parentElement.clientWidth, 720), height = 180, base = 130, context = crisp(canvas, width, height);
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    const most = Math.max(...found.bins, 1), wide = (width - 20) / found.bins.length, x = at => 10 + at * (width - 20);
    context.fillStyle = colour("--held");
    found.bins.forEach((count, i) => { if (count) context.fillRect(10 + i * wide, base - Math.max(1, 92 * count / most), wide - 1, Math.max(1, 92 * count / most)); });
    context.strokeStyle = colour("--soft");
    context.beginPath();
    context.moveTo(10, base + 0.5);
    context.lineTo(width - 10, base + 0.5);
    context.stroke();
    found.at.slice(0, 2000).forEach(at => {
      context.fillStyle = colour(at > found.threshold_at || (found.lower_at !== null && at < found.lower_at) ? "--flag" : "--accent");
      context.fillRect(x(at) - 1, base + 2, 2, 10);
    });
    const lines = [[found.threshold_at, found.threshold, found.lower_at !== null || found.threshold_at <= 0.5]];
    if (found.lower_at !== null) lines.push([found.lower_at, found.lower, false]); // its words to the left of it, the other's to the right
    context.setLineDash([4, 3]);
    context.strokeStyle = colour("--ink");
    context.fillStyle = colour("--ink");
    for (const [place, value, right] of lines) {
      const at = x(place), words = found.lower_at === null ? `threshold ${short(value)}` : short(value);
      context.beginPath();
      context.moveTo(at, 22);
      context.lineTo(at, base);
      context.stroke();
      const long = context.measureText(words).width;
      context.textAlign = "left";
      context.fillText(words, Math.max(0, Math.min(width - long, right ? at + 5 : at - 5 - long)), 16);
    }
    context.fillStyle = colour("--soft");
    context.textAlign = "left";
    context.fillText(short(found.low), 10, base + 26);
    context.textAlign = "right";
    context.fillText(`${found.beyond ? "beyond " : ""}${short(found.high)}`, width - 10, base + 26);
    context.textAlign = "center";
    context.fillText(found.lower_at === null ? `${found.score}, nats: further right is stranger` : `${found.score}, nats: strange beyond either line`, width / 2, base + 40);
  },
};

const EVENTS = 3; // that are told in words; all of them are lines in the curves

export const watch = {
  begin(section) { this.section = section; $("form", section).addEventListener("submit", event => event.preventDefault()); },
  enter(section, entry) { this.entry = entry; this.have = ""; $(".latest", section).replaceChildren(); $(".charts", section).replaceChildren(); },
  shown(now) {
    clearInterval(this.timer);
    if (!now) return;
    this.look();
    this.timer = setInterval(() => { if ($("[name=live]", this.section).checked && !document.hidden) this.look(); }, 3000);
  },
  async look() {
    const section = this.section;
    try {
      const found = await ask("/api/watch", { model: this.entry.name, have: this.have });
      const of = found.total ? ` of ${found.total.toLocaleString("en")}` : "";
      $(".progress", section).textContent = found.images ? `${found.images.toLocaleString("en")}${of} examples in ${found.took} (${found.pace})${found.left ? `, about ${found.left} left` : ""}; last line written ${found.ago} ago` : "nothing is logged yet";
      $("progress", section).value = found.total ? found.images / found.total : 0;
      const events = found.events.slice(-EVENTS).map(({ event }) => make("p", event)), more = found.events.length - events.length;
      const before = more ? [make("span", `the guard acted ${found.events.length} times, at last:`)] : [];
      $(".events", section).replaceChildren(...(events.length ? [...before, ...events] : [make("span", "the guard had nothing to do")]));
      $(".charts", section).replaceChildren(...Object.entries(found.curves).map(([name, points]) => curve(name, points, found.events)));
      if (found.picture) {
        this.have = found.picture.name;
        const image = make("img", []);
        image.src = found.picture.data;
        image.alt = "newest samples";
        $(".latest", section).replaceChildren(image, make("figcaption", `newest samples, ${found.picture.name}`));
      }
      $(".status", section).textContent = "";
      $(".status", section).classList.remove("wrong");
      section.dataset.looked = Number(section.dataset.looked || 0) + 1;
    } catch (error) {
      wrong(section, error);
    }
  },
};

function curve(name, points, events) {
  const canvas = make("canvas", []), width = 320, height = 130, context = crisp(canvas, width, height);
  const all = points.map(point => point[1]).sort((a, b) => a - b), last = points.at(-1), first = points[0][0];
  // a few spikes must not flatten the rest: the middle 98 % of values set the range
  let [low, high] = [all[Math.floor(0.01 * all.length)], all[Math.ceil(0.99 * all.length) - 1]];
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  const x = images => 8 + (width - 16) * (last[0] > first ? (images - first) / (last[0] - first) : 0.5);
  const y = value => 30 + (height - 50) * (1 - Math.min(1, Math.max(0, (value - low) / (high - low))));
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, width, height);
  context.strokeStyle = colour("--flag");
  for (const { images } of events.filter(event => event.images >= first)) { context.beginPath(); context.moveTo(x(images), 26); context.lineTo(x(images), height - 18); context.stroke(); }
  context.strokeStyle = colour("--accent");
  context.lineWidth = 1.6;
  context.beginPath();
  points.forEach(([images, value], i) => (i ? context.lineTo(x(images), y(value)) : context.moveTo(x(images), y(value))));
  context.stroke();
  if (points.length === 1) context.fillRect(x(last[0]) - 2, y(last[1]) - 2, 4, 4);
  context.fillStyle = colour("--ink");
  context.fillText(name, 8, 16);
  context.textAlign = "right";
  context.fillText(short(last[1]), width - 8, 16);
  context.fillStyle = colour("--soft");
  context.textAlign = "left";
  context.fillText(`${short(low)} … ${short(high)}`, 8, height - 5);
  context.textAlign = "right";
  context.fillText(`${last[0].toLocaleString("en")} examples`, width - 8, height - 5);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name}, last ${short(last[1])}`);
  return canvas;
}
