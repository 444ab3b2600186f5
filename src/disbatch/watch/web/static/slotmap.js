// The slots of all nodes on one canvas: a row or block of squares for each engine, busy ones first. Only what
// has changed is drawn again, so ten thousand slots cost no more than a few.

import { count, counted, placeOf } from "/static/words.js";

const LARGEST = 16;
const SMALLEST = 3;
const LABELLED = 11; // pixels of a square from which names stand beside it
const MOST_HIGH = 440;
const LABEL = 104;
const MEASURED = 500; // names: with more, there is no room for any
const BETWEEN = 10;
const GONE = ["left", "failed"];

export class SlotMap {
  constructor(canvas, tip, chosen) {
    this.canvas = canvas;
    this.tip = tip;
    this.engines = [];
    this.byName = new Map();
    this.plan = null;
    this.dirty = new Set();
    this.waiting = false;
    this.at = -1;
    this.readColours();
    new ResizeObserver(() => this.everything()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.everything();
    });
    canvas.addEventListener("pointermove", (event) => this.point(this.find(event)));
    canvas.addEventListener("pointerleave", () => this.point(-1));
    canvas.addEventListener("blur", () => this.point(-1));
    canvas.addEventListener("click", (event) => this.choose(this.find(event), chosen));
    canvas.addEventListener("keydown", (event) => this.key(event, chosen));
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["paper", "busy", "idle", "starting", "draining", "lost", "left", "faint"];
    this.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.font = getComputedStyle(this.canvas).fontFamily;
  }

  // ---- what is shown ----

  take(engines) {
    for (const engine of engines) {
      const known = this.byName.get(engine.engine);
      if (known === undefined) {
        this.byName.set(engine.engine, this.engines.length);
        this.engines.push(engine);
        this.plan = null;
      } else {
        const before = this.engines[known];
        this.engines[known] = engine;
        if (before.slots !== engine.slots) this.plan = null;
        if (before.running !== engine.running || before.state !== engine.state) this.dirty.add(known);
      }
    }
    this.describe();
    this.soon();
  }

  reset() {
    this.engines = [];
    this.byName.clear();
    this.plan = null;
  }

  describe() {
    let [slots, busy] = [0, 0];
    const nodes = new Set();
    for (const engine of this.engines) {
      if (GONE.includes(engine.state)) continue;
      nodes.add(engine.node);
      slots += engine.slots;
      busy += engine.running;
    }
    const label = `${count(busy)} of ${counted(slots, "slot")} on ${counted(nodes.size, "node")} busy. Arrow keys go through the nodes.`;
    if (this.at < 0) this.canvas.setAttribute("aria-label", label);
  }

  everything() {
    this.plan = null;
    this.soon();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  // ---- where everything is ----

  layOut() {
    const width = this.canvas.parentElement.clientWidth;
    const most = this.engines.reduce((found, engine) => Math.max(found, engine.slots), 1);
    this.label = this.engines.length > 1 ? Math.min(this.longestName(), width / 3) : 0;
    let plan = null;
    for (let size = LARGEST; size >= SMALLEST && (plan === null || plan.height > MOST_HIGH); size -= 1) {
      plan = this.layOutWith(size, width, most);
    }
    return plan;
  }

  longestName() {
    const pen = this.canvas.getContext("2d", { alpha: false });
    pen.font = `12px ${this.font}`;
    const widths = this.engines.slice(0, MEASURED).map((engine) => pen.measureText(placeOf(engine.node, engine.label)).width);
    return Math.min(LABEL, Math.ceil(Math.max(...widths)) + 8);
  }

  layOutWith(size, width, most) {
    const label = size >= LABELLED ? this.label : 0;
    const across = Math.max(1, Math.min(most, Math.floor((width - label) / size)));
    const down = Math.ceil(most / across);
    const gap = most === 1 && !label ? 0 : label ? BETWEEN : Math.max(1, size >> 1);
    const blockWidth = label + across * size + gap;
    const blockHeight = down * size + (down > 1 ? 2 : 0);
    const columns = Math.max(1, Math.floor((width + gap) / blockWidth));
    const rows = Math.ceil(this.engines.length / columns);
    return { size, width, label, across, blockWidth, blockHeight, columns, rows, height: Math.max(1, rows * blockHeight) };
  }

  place(index) {
    const { rows, blockWidth, blockHeight } = this.plan;
    return [Math.floor(index / rows) * blockWidth, (index % rows) * blockHeight];
  }

  find(event) {
    if (this.plan === null) return -1;
    const column = Math.floor(event.offsetX / this.plan.blockWidth);
    const row = Math.floor(event.offsetY / this.plan.blockHeight);
    const index = column * this.plan.rows + row;
    return row < this.plan.rows && index < this.engines.length ? index : -1;
  }

  // ---- drawing ----

  draw() {
    if (this.plan === null) {
      this.plan = this.layOut();
      const ratio = devicePixelRatio || 1;
      this.canvas.width = this.plan.width * ratio;
      this.canvas.height = this.plan.height * ratio;
      this.canvas.style.width = `${this.plan.width}px`;
      this.canvas.style.height = `${this.plan.height}px`;
      this.pen = this.canvas.getContext("2d", { alpha: false });
      this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      this.pen.fillStyle = this.colours.paper;
      this.pen.fillRect(0, 0, this.plan.width, this.plan.height);
      this.engines.forEach((_, index) => this.drawEngine(index));
    } else {
      this.dirty.forEach((index) => this.drawEngine(index));
    }
    this.dirty.clear();
    this.canvas.dataset.drawn = String(this.engines.reduce((sum, engine) => sum + engine.slots, 0));
  }

  drawEngine(index) {
    const engine = this.engines[index];
    const { size, label, across } = this.plan;
    const [left, top] = this.place(index);
    const [busy, free] = this.coloursOf(engine);
    const square = size - (size > 5 ? 2 : 1);
    if (label) this.drawLabel(engine, left, top);
    for (let slot = 0; slot < engine.slots; slot += 1) {
      this.pen.fillStyle = slot < engine.running ? busy : free;
      this.pen.fillRect(left + label + (slot % across) * size, top + Math.floor(slot / across) * size, square, square);
    }
  }

  drawLabel(engine, left, top) {
    const { label, size } = this.plan;
    this.pen.fillStyle = this.colours.paper;
    this.pen.fillRect(left, top, label, size);
    this.pen.fillStyle = this.colours.faint;
    this.pen.font = `${Math.min(12, size)}px ${this.font}`;
    this.pen.textBaseline = "middle";
    this.pen.textAlign = "right";
    let name = placeOf(engine.node, engine.label);
    while (name.length > 3 && this.pen.measureText(name).width > label - 8) name = `${name.slice(0, -2)}…`;
    this.pen.fillText(name, left + label - 6, top + size / 2 - 0.5);
  }

  coloursOf(engine) {
    const colours = this.colours;
    if (GONE.includes(engine.state)) return [colours.left, colours.left];
    if (engine.state === "lost") return [colours.lost, colours.lost];
    if (["launching", "starting"].includes(engine.state)) return [colours.starting, colours.starting];
    if (["draining", "leaving"].includes(engine.state)) return [colours.draining, colours.left];
    return [colours.busy, colours.idle];
  }

  // ---- one node ----

  point(index) {
    this.at = index;
    this.tip.hidden = index < 0;
    if (index < 0) return;
    const engine = this.engines[index];
    const words = `${placeOf(engine.node, engine.label)}: ${count(engine.running)} of ${counted(engine.slots, "slot")} busy, ${engine.state}`;
    this.tip.textContent = words;
    this.canvas.setAttribute("aria-label", words);
    const [left, top] = this.place(index);
    this.tip.style.left = `${Math.max(0, Math.min(left, this.plan.width - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${top + this.plan.blockHeight + 4}px`;
  }

  choose(index, chosen) {
    if (index >= 0) chosen(this.engines[index]);
  }

  key(event, chosen) {
    if (this.plan === null || !this.engines.length) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, ArrowRight: this.plan.rows, ArrowLeft: -this.plan.rows };
    if (event.key in steps) {
      const next = this.at < 0 ? 0 : this.at + steps[event.key];
      this.point(Math.max(0, Math.min(this.engines.length - 1, next)));
    } else if (event.key === "Enter") {
      this.choose(this.at, chosen);
    } else if (event.key === "Escape") {
      this.point(-1);
    } else {
      return;
    }
    event.preventDefault();
  }
}
