#!/usr/bin/env node
// The builders page in a real Chromium: it changes live as a builder starts a
// job, reads the same with JavaScript off, and what strangers wrote stays text.
// Needs chromium and a running farm with a free builder; no packages.
//
// usage: FARMBELL_SOCKET=… tests/browser/page.mjs PAGE-URL FARMBELL SCREENSHOT-DIR
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [url, farmbell, pictures] = process.argv.slice(2);
const PATIENCE_MS = 30_000;
const MARK = `job-${Date.now().toString(36)}`;
const HOSTILE = `${MARK}<script>document.title='owned'</script>\u001b[31m\u202Egpj`;
const LOG = "printf '\\033]0;owned\\007<b>bold</b> \\342\\200\\256 \\000\\n'; sleep 600";

mkdirSync(pictures, { recursive: true });
const profile = mkdtempSync(join(tmpdir(), "farmbell-browser-"));
const chromium = spawn("chromium", [
  "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
  `--user-data-dir=${profile}`, "--window-size=1200,1000",
], { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

// One JSON message per NUL-ended line, both ways.
const answers = new Map();
let received = "";
chromium.stdio[4].setEncoding("utf8").on("data", (piece) => {
  const messages = (received + piece).split("\0");
  received = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) {
    const key = message.id ?? `${message.sessionId} ${message.method}`;
    answers.get(key)?.(message);
    answers.delete(key);
  }
});
let sent = 0;
const ask = (sessionId, method, params = {}) => new Promise((resolve, reject) => {
  const id = ++sent;
  answers.set(id, (answer) => (answer.error ? reject(new Error(answer.error.message)) : resolve(answer.result)));
  chromium.stdio[3].write(`${JSON.stringify({ id, sessionId, method, params })}\0`);
});

const event = (session, method) => new Promise((resolve) => answers.set(`${session} ${method}`, resolve));

const tab = async () => {
  const { targetId } = await ask(undefined, "Target.createTarget", { url: "about:blank" });
  const { sessionId } = await ask(undefined, "Target.attachToTarget", { targetId, flatten: true });
  await ask(sessionId, "Page.enable");
  return sessionId;
};
const value = async (session, expression) => {
  const { result } = await ask(session, "Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  return result.value;
};
// Resolves in the page itself, when its text changes so.
const says = (session, text) => value(session, `new Promise((resolve) => {
  const here = () => document.body?.innerText.includes(${JSON.stringify(text)});
  if (here()) return resolve(true);
  new MutationObserver((_, observer) => { if (here()) { observer.disconnect(); resolve(true); } })
    .observe(document, { childList: true, subtree: true, characterData: true });
  setTimeout(() => resolve(false), ${PATIENCE_MS});
})`);
const picture = async (session, name) => {
  const { data } = await ask(session, "Page.captureScreenshot", { format: "png" });
  writeFileSync(join(pictures, name), Buffer.from(data, "base64"));
};
const must = (holds, what) => {
  console.log(`${holds ? "ok  " : "FAIL"} ${what}`);
  if (!holds) process.exitCode = 1;
};

try {
  const live = await tab();
  await ask(live, "Page.navigate", { url });
  must(await says(live, "Recent verdicts"), "the page is there");
  must(!(await value(live, `document.body.innerText.includes('${MARK}')`)), "the job is not there yet");
  execFileSync(farmbell, ["builder", "quarantine", "atlas-2", "--reason", "3 fast failures since 02:14"]);
  execFileSync(farmbell, ["submit", "--allow-unmatched", "--arch", "riscv64", "--name", "waits", "--", "true"]);
  execFileSync(farmbell, ["submit", "--name", HOSTILE, "--", "sh", "-c", LOG]);
  must(await says(live, `${MARK}<script>`), "the job appears without a reload, as text");
  must(await says(live, "<b>bold</b>"), "the tail of its log appears, as text");
  must(await value(live, "document.title !== 'owned' && !document.querySelector('main script, main b')"), "nothing of it became HTML");
  must(await value(live, "!/[\\u0000\\u001b\\u202e]/.test(document.body.innerText)"), "no control or bidi character reached the page");
  must(await says(live, "0 builders match"), "a waiting job says why");
  must(await says(live, "See to this"), "what is wrong stands first, with what to type");
  must(await says(live, "farmbell builder resume atlas-2 --reason WHY"), "a quarantined builder has its command");
  await picture(live, "live.png");
  await ask(live, "Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: "dark" }] });
  await picture(live, "dark.png");

  const plain = await tab();
  await ask(plain, "Emulation.setScriptExecutionDisabled", { value: true });
  await ask(plain, "Page.bringToFront");
  const loaded = event(plain, "Page.loadEventFired");
  await ask(plain, "Page.navigate", { url });
  await loaded;
  await picture(plain, "without-javascript.png");
  const { root } = await ask(plain, "DOM.getDocument", { depth: 0 });
  const { outerHTML } = await ask(plain, "DOM.getOuterHTML", { nodeId: root.nodeId });
  must(outerHTML.includes(`${MARK}&lt;script&gt;`), "the same page reads without JavaScript");
  must(/http-equiv="refresh"/.test(outerHTML), "and renews itself");
} finally {
  if (chromium.exitCode === null) {
    // Asked to close it ends its helpers too; killed, they write to the profile still.
    const gone = new Promise((resolve) => chromium.once("exit", resolve));
    await ask(undefined, "Browser.close").catch(() => chromium.kill());
    await gone;
  }
  rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}
