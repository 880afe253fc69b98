// Asks the server, and shows the trace of each text while it is written.

const field = name => document.getElementById(name);

async function* events(response) { // the values of server-sent events, up to the last
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the server ended the stream early");
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part === "data: [DONE]") return;
      yield JSON.parse(part.slice(6));
    }
  }
}

function entries(columns, ...names) { // of a line's columns, one array a token
  return (columns[names[0]] || []).map((_, index) => names.map(name => columns[name][index]));
}

class Live { // a panel that is fed by the lines of a trace
  constructor(title, prompt) {
    const facts = { nfe: 0, seconds: 0, tokens: null };
    this.panel = viewer.open({ title, prompt, facts, length: 0, mask: null, eos: [],
      vocabulary: {}, given: {}, rules: [], frames: [] });
    this.note = element(this.panel.root, "p", "waiting …", "note");
    this.panel.text.before(this.note);
    this.refreshes = 0;
  }

  take(line) {
    const data = this.panel.data;
    if (line.type === "run") {
      Object.assign(data, { mask: line.mask_id, eos: line.eos_ids, length: line.rows[0].length });
      this.panel.grow(data.length);
    } else if (line.type === "step") {
      Object.assign(data.vocabulary, line.vocabulary);
      Object.assign(data.given, Object.fromEntries(entries(line.given, "position", "token")));
      this.panel.add(this.frame(line));
      this.say("");
    } else {
      data.facts.tokens = line.new_tokens[0];
    }
    viewer.refresh();
  }

  frame(line) {
    const refreshes = line.refreshes - this.refreshes;
    this.refreshes = line.refreshes;
    return {
      seconds: line.seconds, nfe: line.nfe[0], refreshes,
      lo: line.lo[0], hi: line.hi[0], stop: line.stop[0], confidence: line.confidence[0],
      writes: entries(line.writes, "position", "token", "rule", "confidence", "margin", "entropy"),
      drafts: entries(line.drafts, "position", "token"),
    };
  }

  say(text, style = "note") {
    this.note.textContent = text;
    this.note.className = style;
  }
}

async function answer(response) { // its JSON; the server's error is thrown
  const found = await response.json();
  if (!response.ok) throw new Error(found.error.message);
  return found;
}

class Ask {
  constructor() {
    field("ask").addEventListener("submit", event => { event.preventDefault(); this.decode(); });
    field("ask").addEventListener("keydown", event => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) field("ask").requestSubmit();
    });
    field("stop").addEventListener("click", () => this.running.abort());
  }

  async decode() {
    this.running?.abort();
    const running = this.running = new AbortController();
    viewer.clear();
    field("stop").disabled = false;
    const headers = { "Content-Type": "application/json" };
    if (field("key").value) headers.Authorization = `Bearer ${field("key").value}`;
    const how = { headers, signal: running.signal };
    const model = fetch("v1/models", how).then(answer).then(found => found.data[0].id);
    const samplers = [field("left").value, field("right").value].filter(name => name.trim());
    await Promise.all(samplers.map(sampler => this.follow(sampler, model, how)));
    if (this.running === running) field("stop").disabled = true;
  }

  async follow(sampler, model, how) {
    const prompt = field("prompt").value, live = new Live(sampler, prompt);
    try {
      const body = JSON.stringify({ model: await model, sampler, stream: true, trace: true,
        max_tokens: Number(field("length").value), messages: [{ role: "user", content: prompt }] });
      const response = await fetch("v1/chat/completions", { ...how, method: "POST", body });
      if (!response.ok) await answer(response);
      for await (const part of events(response)) {
        if (part.error) throw new Error(part.error.message);
        if (part.trace) live.take(part.trace);
      }
    } catch (error) {
      if (error.name === "AbortError") live.say("stopped");
      else live.say(error.message, "note error");
    }
  }
}

new Ask();
