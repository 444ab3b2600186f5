// Tasks a second and busy slots over time, drawn by uPlot.

import { count, perSecond } from "/static/words.js";

const HIGH = 150;
const MOST_POINTS = 1500;
const BINS = 240; // of the throughput: fewer than points, or it is noise

export class Charts {
  constructor(throughput, busy) {
    this.places = { throughput, busy };
    this.points = []; // [time, done, running, slots]
    this.waiting = false;
    this.build();
    new ResizeObserver(() => this.resize()).observe(throughput);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build());
  }

  build() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    for (const plot of [this.throughput, this.busy]) plot?.destroy();
    const axis = { stroke: colour("faint"), grid: { stroke: colour("rule"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = (series, value) => ({
      width: 300,
      height: HIGH,
      legend: { show: false },
      padding: [8, 20, 0, 0],
      cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { y: { range: (_, least, most) => [0, (most || 1) * 1.08] } },
      axes: [
        { ...axis, grid: { show: false }, values: times, space: 70, size: 26, gap: 4 },
        { ...axis, size: 58, space: 30, values: (_, splits) => splits.map((each) => value(each, splits[splits.length - 1])) },
      ],
      series: [{}, ...series],
    });
    const fill = colour("busy-fill");
    this.throughput = new uPlot(
      options([{ stroke: colour("busy"), fill, width: 1.5, points: { show: false } }], (rate, most) => (rate ? perSecond(rate, most) : "0")),
      [[], []], this.places.throughput,
    );
    const there = { stroke: colour("faint"), width: 1, dash: [4, 3], points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) };
    const used = { stroke: colour("busy"), fill, width: 1.5, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) };
    this.busy = new uPlot(options([used, there], (slots) => (Number.isInteger(slots) ? count(slots) : "")), [[], [], []], this.places.busy);
    this.resize();
  }

  take(points) {
    this.points.push(...points);
    if (this.points.length > MOST_POINTS) {
      const half = this.points.length >> 1;
      this.points = this.points.filter((_, index) => index >= half || index % 2 === 0);
    }
    this.soon();
  }

  reset() {
    this.points = [];
  }

  resize() {
    for (const name of ["throughput", "busy"]) {
      const width = this.places[name].clientWidth;
      if (width) this[name].setSize({ width, height: HIGH });
    }
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

  draw() {
    const points = this.points;
    this.busy.setData([points.map((p) => p[0]), points.map((p) => p[2]), points.map((p) => p[3])]);
    this.throughput.setData(rates(points));
  }
}

// Tasks a second between points that lie far enough apart.
function rates(points) {
  const [times, values] = [[], []];
  if (points.length < 2) return [times, values];
  const least = Math.max(1, (points[points.length - 1][0] - points[0][0]) / BINS);
  let from = points[0];
  for (const point of points) {
    const seconds = point[0] - from[0];
    if (seconds < least) continue;
    times.push(from[0] + seconds / 2);
    values.push(Math.max(0, (point[1] - from[1]) / seconds));
    from = point;
  }
  return [times, values];
}

function times(plot, splits, _axis, _space, step) {
  return splits.map((time) => {
    const date = new Date(time * 1000);
    const clock = date.toLocaleTimeString("en-GB", step < 60 ? {} : { hour: "2-digit", minute: "2-digit" });
    return step >= 86400 ? date.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : clock;
  });
}
