// Orders: ask for confirmation, send, show the answer.

const dialog = document.getElementById("ask");
const said = document.getElementById("said");
const SHOWN = 12000; // milliseconds

export function tell(words, good) {
  const line = document.createElement("p");
  line.className = good ? "" : "bad";
  line.textContent = words;
  said.append(line);
  setTimeout(() => line.remove(), SHOWN);
}

export async function order(verb) {
  let answer;
  try {
    const response = await fetch("/order", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(verb),
    });
    answer = await response.json();
  } catch {
    answer = { ok: false, lines: ["The run could not be reached."] };
  }
  for (const line of answer.lines.slice(0, 5)) tell(line, answer.ok);
  if (answer.lines.length > 5) tell(`and ${answer.lines.length === 6 ? "1 line" : `${answer.lines.length - 5} lines`} more`, answer.ok);
}

export function ask(question, explained, words, verb) {
  document.getElementById("question").textContent = question;
  document.getElementById("explained").textContent = explained;
  const yes = document.getElementById("yes");
  yes.textContent = words;
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue === "yes") order(verb);
  };
  dialog.showModal();
  dialog.querySelector("button[value=no]").focus();
}
