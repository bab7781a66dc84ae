// Charts of a device's readings, one panel each, with one crosshair. History comes once, new points are appended.
import { echarts } from "nicegui-echart";

const POINTS_MAX = 4000;
const short = (v) => (v === null || v === undefined ? "–" : Math.abs(v) >= 1e6 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(Number(v.toPrecision(5))));

export default {
  template: `<div class="curves">
    <div class="panel" v-for="name in chosen" :key="name" :data-reading="name">
      <div class="top"><i :style="{background: 'var(--chart-' + shade(name) + ')'}"></i><b>{{ name }}</b>
        <span class="now">{{ now(name) }}</span><span class="unit">{{ units[name] }}</span></div>
      <div class="plot" :ref="(el) => attach(name, el)" role="img" :aria-label="'Chart of ' + name"></div>
      <div class="span"><span>min {{ stat(name, 'min') }}</span><span>avg {{ stat(name, 'avg') }}</span><span>max {{ stat(name, 'max') }}</span></div>
    </div></div>`,
  props: { readings: Array, units: Object, chosen: Array, shown: Object },
  data: () => ({ stats: {}, last: {} }),
  created() {
    this.points = {};
    this.charts = {};
    this.window = { from: 0, to: 0, follow: true };
    this.dirty = new Set();
    this.group = `curves-${Math.random()}`;
  },
  mounted() {
    this.retheme = () => { for (const name of Object.keys(this.charts)) this.style(name); };
    window.addEventListener("godwit:theme", this.retheme);
    this.slide = setInterval(() => { if (this.window.follow && !document.hidden) this.redrawAll(); }, 1000);
  },
  beforeUnmount() {
    clearInterval(this.slide);
    window.removeEventListener("godwit:theme", this.retheme);
    for (const each of Object.values(this.charts)) { each.seen.disconnect(); each.chart.dispose(); }
  },
  methods: {
    shade(name) { return (Math.max(0, this.readings.indexOf(name)) % 6) + 1; },
    now(name) { return short(this.last[name]?.[1] ?? null); },
    stat(name, which) { return short(this.stats[name]?.[which] ?? null); },
    attach(name, el) {
      if (!el) {
        const old = this.charts[name];
        if (old) { old.seen.disconnect(); old.chart.dispose(); delete this.charts[name]; }
        return;
      }
      if (this.charts[name]) return;
      const chart = echarts.init(el, null, { renderer: "canvas" });
      chart.group = this.group;
      echarts.connect(this.group);
      const seen = new ResizeObserver(() => chart.resize());
      seen.observe(el);
      this.charts[name] = { chart, seen };
      this.style(name);
      this.redraw(name);
    },
    style(name) {
      const c = godwit.colour;
      const line = c(`chart-${this.shade(name)}`);
      const text = { color: c("ink-faint"), fontSize: 11, fontFamily: "inherit" };
      this.charts[name].chart.setOption({
        animation: false,
        grid: { left: 4, right: 4, top: 12, bottom: 2, containLabel: true },
        xAxis: { type: "time", axisLine: { lineStyle: { color: c("line-strong") } }, axisTick: { show: false }, axisLabel: { ...text, hideOverlap: true, formatter: { hour: "{HH}:{mm}", minute: "{HH}:{mm}", second: "{HH}:{mm}:{ss}", day: "{d} {MMM}", millisecond: "" } }, splitLine: { show: false }, splitNumber: 5 },
        yAxis: { type: "value", scale: true, splitNumber: 3, axisLabel: text, splitLine: { lineStyle: { color: c("line") } } },
        tooltip: { trigger: "axis", confine: true, backgroundColor: c("raised"), borderColor: c("line-strong"), padding: [4, 8], textStyle: { color: c("ink"), fontSize: 12, fontFamily: "inherit" }, axisPointer: { lineStyle: { color: c("ink-faint") } },
          formatter: (items) => { const p = items[0]?.value; return p ? `<b>${short(p[1])}</b> ${echarts.format.encodeHTML(this.units[name] ?? "")}<br><span style="opacity:.7">${new Date(p[0]).toLocaleString()}</span>` : ""; } },
        series: [{ type: "line", showSymbol: false, sampling: "lttb", lineStyle: { width: 1.75, color: line }, itemStyle: { color: line }, areaStyle: { color: line, opacity: 0.08, origin: "start" }, data: this.points[name] ?? [] }],
      });
    },
    bounds() {
      if (!this.window.follow) return [this.window.from, this.window.to];
      const to = Date.now();
      return [to - (this.window.to - this.window.from), to];
    },
    redraw(name) {
      const own = this.charts[name];
      if (!own) return;
      const [min, max] = this.bounds();
      const data = this.points[name] ?? [];
      if (this.window.follow) { // leave one point before the window, so that the line enters from the edge
        let drop = 0;
        while (drop + 1 < data.length && data[drop + 1][0] < min) drop++;
        if (drop) data.splice(0, drop);
      }
      if (data.length > POINTS_MAX) data.splice(0, data.length - POINTS_MAX);
      // few points are marked: a single reading draws no line
      own.chart.setOption({ xAxis: { min, max }, series: [{ data, showSymbol: data.length < 40, symbolSize: 5 }] });
      let low = Infinity, high = -Infinity, sum = 0, n = 0;
      for (const [at, v] of data) if (v !== null && at >= min && at <= max) { low = Math.min(low, v); high = Math.max(high, v); sum += v; n++; }
      this.stats[name] = n ? { min: low, max: high, avg: sum / n } : {};
    },
    redrawAll() { for (const name of Object.keys(this.charts)) this.redraw(name); },
    load(points, window_) {
      this.window = window_;
      this.points = points;
      for (const [name, list] of Object.entries(points)) if (list.length && !(this.last[name]?.[0] > list.at(-1)[0])) this.last[name] = list.at(-1);
      this.redrawAll();
    },
    append(batch) {
      for (const [name, list] of Object.entries(batch)) {
        const newest = list.reduce((a, b) => (b[0] >= a[0] ? b : a));
        if (!(this.last[name]?.[0] > newest[0])) this.last[name] = newest;
        if (!this.window.follow) continue;
        const own = (this.points[name] ??= []);
        const late = own.length && list[0][0] < own.at(-1)[0];
        own.push(...list);
        if (late) own.sort((a, b) => a[0] - b[0]);
        this.dirty.add(name);
      }
      if (this.pending) return;
      this.pending = requestAnimationFrame(() => {
        this.pending = 0;
        for (const name of this.dirty) this.redraw(name);
        this.dirty.clear();
      });
    },
  },
};
