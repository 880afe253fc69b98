// Controls, keyboard and the history of a token, over all panels.

class Viewer {
  constructor(data) {
    for (const name of ["bar", "now", "play", "speed", "colour", "history"]) {
      this[name] = document.getElementById(name);
    }
    this.main = document.getElementById("panels"), this.panels = [];
    this.hint = this.history.firstElementChild;
    this.step = 0, this.timer = 0, this.drawing = 0;
    this.bar.addEventListener("input", () => this.go(Number(this.bar.value)));
    this.play.addEventListener("click", () => this.toggle());
    this.speed.addEventListener("change", () => { if (this.timer) this.toggle(), this.toggle(); });
    this.colour.addEventListener("change", () => this.go(this.step));
    document.addEventListener("keydown", event => this.key(event));
    addEventListener("resize", () => this.go(this.step));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.go(this.step));
    for (const one of data) this.open(one);
    this.go(this.last);
  }

  get last() { return Math.max(0, ...this.panels.map(panel => panel.last)); }

  open(data) { // one more panel
    const panel = new Panel(this.main, data);
    this.panels.push(panel);
    this.listen(panel);
    return panel;
  }

  clear() { // no panel is left
    if (this.timer) this.toggle();
    this.panels = [], this.focus = null;
    this.main.replaceChildren(), this.history.replaceChildren(this.hint);
    this.go(0);
  }

  refresh() { // live: a panel has more; who looks at the last step goes on with it
    this.drawing ||= requestAnimationFrame(() => {
      this.drawing = 0;
      this.go(this.follows ? this.last : this.step);
    });
  }

  listen(panel) {
    panel.text.addEventListener("mouseover", event => {
      if (event.target.dataset.at !== undefined) this.choose(panel, Number(event.target.dataset.at));
    });
    panel.map.addEventListener("mousemove", event => {
      const at = Math.floor(event.offsetX / panel.map.clientWidth * panel.spans.length);
      if (at >= 0 && at < panel.spans.length) this.choose(panel, at);
    });
    panel.map.addEventListener("click", event => {
      this.go(Math.ceil(event.offsetY / panel.map.clientHeight * panel.last));
    });
  }

  go(step) {
    this.step = Math.max(0, Math.min(step, this.last));
    this.follows = this.step === this.last;
    this.bar.max = this.last;
    this.bar.value = this.step;
    this.now.textContent = `step ${this.step} of ${this.last}`;
    for (const panel of this.panels) panel.show(this.step, this.colour.value);
    if (this.focus) this.tell();
  }

  toggle() {
    if (this.timer) {
      clearInterval(this.timer);
      this.timer = 0;
    } else {
      if (this.step >= this.last) this.go(0);
      this.timer = setInterval(() => this.step < this.last ? this.go(this.step + 1) : this.toggle(),
        1000 / Number(this.speed.value));
    }
    this.play.textContent = this.timer ? "⏸" : "▶";
    this.play.setAttribute("aria-label", this.timer ? "pause" : "play");
  }

  key(event) {
    const own = event.target === this.bar; // it moves by itself
    const types = !own && event.target.matches("select, input, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || types) return;
    const todo = {
      ArrowLeft: () => own || this.go(this.step - 1),
      ArrowRight: () => own || this.go(this.step + 1),
      Home: () => this.go(0),
      End: () => this.go(this.last),
      " ": () => event.target.tagName === "BUTTON" || this.toggle(),
      c: () => {
        this.colour.selectedIndex = (this.colour.selectedIndex + 1) % this.colour.length;
        this.go(this.step);
      },
      "[": () => this.walk(-1),
      "]": () => this.walk(1),
    }[event.key];
    if (!todo) return;
    if (todo() !== true) event.preventDefault();
  }

  walk(by) {
    const panel = this.focus || this.panels[0];
    if (!panel || !panel.spans.length) return;
    const at = Math.max(0, Math.min(panel.chosen + by, panel.spans.length - 1));
    this.choose(panel, at);
    panel.spans[at].scrollIntoView({ block: "nearest" });
  }

  choose(panel, at) {
    if (this.focus === panel && panel.chosen === at) return;
    const before = this.focus;
    if (before && before !== panel) before.chosen = -1, before.show(this.step, this.colour.value);
    panel.chosen = at, this.focus = panel;
    panel.show(this.step, this.colour.value);
    this.tell();
  }

  tell() { // the history of the chosen position
    const panel = this.focus, at = panel.chosen;
    this.history.replaceChildren();
    element(this.history, "h3", `${panel.data.title} · position ${at}`);
    const table = element(this.history, "table"), head = element(table, "tr");
    for (const name of ["step", "token", "what", "confidence", "margin", "entropy"]) {
      element(head, "th", name);
    }
    const digits = value => value === null || value === undefined ? "" : String(value);
    const rows = panel.drafts[at].map(one => ({ ...one, rule: "proposed", ...this.guess(panel, one, at) }));
    rows.push(...panel.writes[at].map(one => {
      const back = one.token === panel.data.mask;
      return { ...one, rule: back ? `taken back by ${one.rule}` : `written by ${one.rule}` };
    }));
    rows.sort((a, b) => a.step - b.step);
    for (const one of rows) {
      const row = element(table, "tr", "", one.step === this.step ? "now" : "");
      const word = JSON.stringify(panel.word(one.token));
      for (const cell of [one.step, word, one.rule, one.confidence, one.margin, one.entropy]) {
        element(row, "td", digits(cell));
      }
    }
    if (!rows.length) element(this.history, "p", "nothing happened here");
  }

  guess(panel, one, at) {
    const sure = panel.sure(one.step, at);
    return sure === undefined ? {} : { confidence: sure.toFixed(2) };
  }
}

const viewer = new Viewer(JSON.parse(document.getElementById("data").textContent));
