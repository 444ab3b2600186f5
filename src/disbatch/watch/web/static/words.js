// Numbers and words, as on the terminal.

// A node's name with the label of its context, as several nodes may have the same name.
export const placeOf = (node, label) => (label ? `${node} (${label})` : node);

export const NOBODY = "–";
const whole = new Intl.NumberFormat("en");

export function count(number) {
  return whole.format(number);
}

export function duration(seconds) {
  if (seconds < 0.9995) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const two = (number) => String(number).padStart(2, "0");
  const all = Math.floor(seconds + 0.5);
  const [days, hours, minutes] = [Math.floor(all / 86400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60];
  if (days) return `${days}d ${two(hours)}:${two(minutes)}`;
  if (hours) return `${hours}:${two(minutes)}:${two(all % 60)}`;
  return `${minutes}:${two(all % 60)}`;
}

// A growing duration, or an estimate.
export function wholeSeconds(seconds) {
  return seconds < 59.5 ? `${seconds.toFixed(0)} s` : duration(Math.max(60, seconds));
}

// The duration of a run.
export function runTime(seconds) {
  return seconds > 0 && seconds < 9.95 ? `${Math.max(0.1, seconds).toFixed(1)} s` : wholeSeconds(seconds);
}

const UNITS = [[1, "s"], [60, "min"], [3600, "h"]];

// A rate that is part of another rate, `beside`, gets the unit of that one.
export function perSecond(rate, beside) {
  const [seconds, unit] = UNITS.find(([each]) => (beside || rate) * each >= 1) ?? UNITS[2];
  const number = rate * seconds;
  if (number >= 100) return `${count(Math.round(number))}/${unit}`;
  if (number >= 1) return `${number.toFixed(1)}/${unit}`;
  return `${number >= 0.001 ? Number(number.toPrecision(2)) : 0}/${unit}`;
}

export function share(part, all) {
  return `${Math.round((100 * part) / all)}%`;
}

const SIGNALS = {
  1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1", 11: "SEGV",
  12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 24: "XCPU", 25: "XFSZ",
};

const REASONS = { "time limit": "ended at its time limit", memory: "out of memory" };
const LOST = -100;

export function howEnded(code, reason = "") {
  if (reason) return REASONS[reason] ?? reason;
  if (code === LOST) return "lost with its node";
  return SIGNALS[-code] ? `killed by SIG${SIGNALS[-code]}` : `exit ${code}`;
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString("en-GB");
}

export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
