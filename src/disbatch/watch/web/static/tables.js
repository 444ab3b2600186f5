// Tables that keep their rows while the contents change, so that the element with the focus stays.

export class Table {
  // `fill(row, item)` puts an item's words into the cells of its row; `make(item)` makes that row.
  constructor(table, { key, make, fill, most, note }) {
    Object.assign(this, { table, key, make, fill, most, note });
    this.body = table.tBodies[0];
    this.body.replaceChildren();
    this.rows = new Map();
  }

  show(items) {
    const shown = items.slice(0, this.most);
    const wanted = new Set(shown.map(this.key));
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    let before = null;
    for (const item of shown) {
      const key = this.key(item);
      let row = this.rows.get(key);
      if (row === undefined) {
        row = this.make(item);
        this.rows.set(key, row);
      }
      const place = before === null ? this.body.firstElementChild : before.nextElementSibling;
      if (place !== row) this.body.insertBefore(row, place);
      this.fill(row, item);
      before = row;
    }
    this.note?.(items.length, shown.length);
  }
}

export function say(cell, words) {
  if (cell.textContent !== words) cell.textContent = words;
}

// A row of cells of these classes; "th" begins one that names the row.
export function makeRow(kinds) {
  const row = document.createElement("tr");
  for (const kind of kinds) {
    const heads = kind.startsWith("th");
    const cell = document.createElement(heads ? "th" : "td");
    if (heads) cell.scope = "row";
    cell.className = heads ? kind.slice(2).trim() : kind;
    row.append(cell);
  }
  return row;
}

export function makeButton(words, label, act, kind = "") {
  const button = document.createElement("button");
  button.type = "button";
  button.className = kind;
  button.textContent = words;
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

export function code(cell, command, snippet) {
  const shown = document.createElement("code");
  shown.textContent = command;
  cell.replaceChildren(shown);
  if (snippet) {
    const said = document.createElement("samp");
    said.textContent = snippet;
    cell.append(said);
  }
}

// Column heads as buttons that sort.
export function makeSortable(table, changed) {
  let [column, rising] = ["", true];
  for (const head of table.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      rising = column === head.dataset.sort ? !rising : head.dataset.sort === "node" || head.dataset.sort === "state";
      column = head.dataset.sort;
      for (const other of table.querySelectorAll("th[data-sort]")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      changed();
    });
  }
  const names = new Intl.Collator("en", { numeric: true });
  return (items, values) => {
    if (!column) return items;
    const of = values[column];
    const sign = rising ? 1 : -1;
    const compare = (a, b) => {
      const [x, y] = [of(a), of(b)];
      return typeof x === "string" ? names.compare(x, y) : (x ?? -1) - (y ?? -1);
    };
    return [...items].sort((a, b) => sign * compare(a, b));
  };
}
