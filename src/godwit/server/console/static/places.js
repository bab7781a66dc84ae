// Where devices stand: points on an equirectangular grid with meridians and parallels. No tiles, no other host.
import { echarts } from "nicegui-echart";

const degrees = (v, plus, minus) => (Math.abs(v) < 1e-9 ? "0°" : `${Number(Math.abs(v).toFixed(3))}° ${v > 0 ? plus : minus}`);
const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60];

export default {
  template: `<div class="places" role="img" aria-label="Map of device locations"></div>`,
  props: { points: Array },
  mounted() {
    this.list = this.points ?? [];
    this.chart = echarts.init(this.$el, null, { renderer: "canvas" });
    this.chart.on("click", (e) => { if (e.value?.[2]) location.assign(`/devices/${encodeURIComponent(e.value[2])}`); });
    this.seen = new ResizeObserver(() => { this.chart.resize(); this.draw(); });
    this.seen.observe(this.$el);
    this.retheme = () => this.draw();
    window.addEventListener("godwit:theme", this.retheme);
    this.draw();
  },
  beforeUnmount() {
    this.seen.disconnect();
    window.removeEventListener("godwit:theme", this.retheme);
    this.chart.dispose();
  },
  methods: {
    load(points) { this.list = points; this.draw(); },
    // the part of the world that holds all points, in the shape of the box: a degree north is 1/cos(latitude) east
    fit() {
      const lat = this.list.map((p) => p[1]), lon = this.list.map((p) => p[0]);
      const span = (v) => v.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
      let [south, north] = span(lat), [west, east] = span(lon);
      const mid = (south + north) / 2, cos = Math.max(0.1, Math.cos((mid * Math.PI) / 180));
      const shape = this.$el.clientWidth / Math.max(1, this.$el.clientHeight) / cos;
      let h = Math.max((north - south) * 1.35, ((east - west) * 1.2) / shape, 0.02);
      const centre = (west + east) / 2;
      return { south: mid - h / 2, north: mid + h / 2, west: centre - (h * shape) / 2, east: centre + (h * shape) / 2 };
    },
    draw() {
      const c = godwit.colour;
      if (!this.list.length) return this.chart.clear();
      const { south, north, west, east } = this.fit();
      const step = STEPS.find((s) => (north - south) / s <= 5 && (east - west) / s <= this.$el.clientWidth / 56) ?? 60;
      const axis = (min, max) => ({ type: "value", min, max, show: false });
      // an axis would count from its own end; meridians and parallels stand at round degrees
      const lines = [];
      for (let i = Math.ceil(west / step); i * step < east; i++) lines.push([i * step, 0, 1]);
      for (let i = Math.ceil(Math.max(south, -90) / step); i * step < Math.min(north, 90.001); i++) lines.push([0, i * step, 0]);
      const graticule = {
        type: "custom", silent: true, data: lines, z: 1, tooltip: { show: false }, encode: { x: 0, y: 1 }, clip: false,
        renderItem: (_, api) => {
          const meridian = api.value(2) === 1, v = api.value(meridian ? 0 : 1);
          const [x, y] = api.coord(meridian ? [v, south] : [west, v]);
          const wide = api.getWidth(), high = api.getHeight();
          const shape = meridian ? { x1: x, x2: x, y1: 0, y2: high } : { x1: 0, x2: wide, y1: y, y2: y };
          const words = meridian ? degrees(((v + 540) % 360) - 180, "E", "W") : degrees(v, "N", "S");
          return { type: "group", children: [
            { type: "line", shape, style: { stroke: c("line-strong"), lineWidth: 1, opacity: 0.55 } },
            { type: "text", style: { text: meridian && x > wide - 48 ? "" : words, x: meridian ? x + 4 : 6, y: meridian ? high - 4 : y - 3, textVerticalAlign: "bottom", fill: c("ink-faint"), font: "10px sans-serif" } },
          ] };
        },
      };
      const group = (online) => ({
        type: "scatter", name: online ? "online" : "offline", progressive: 2000, symbolSize: this.list.length > 500 ? 6 : 10, z: online ? 3 : 2,
        itemStyle: { color: online ? c("good") : c("surface"), borderColor: online ? c("surface") : c("idle"), borderWidth: 1.5 },
        data: this.list.filter((p) => p[3] === online),
      });
      this.chart.setOption({
        animation: false, backgroundColor: c("sunken"),
        grid: { left: 0, right: 0, top: 0, bottom: 0 },
        xAxis: axis(west, east), yAxis: axis(south, north),
        tooltip: { trigger: "item", confine: true, backgroundColor: c("raised"), borderColor: c("line-strong"), padding: [4, 8], textStyle: { color: c("ink"), fontSize: 12, fontFamily: "inherit" },
          formatter: (p) => p.value ? `<b>${echarts.format.encodeHTML(String(p.value[2]))}</b> ${p.seriesName}<br><span style="opacity:.7">${degrees(p.value[1], "N", "S")}, ${degrees(p.value[0], "E", "W")}</span>` : "" },
        dataZoom: [{ type: "inside", xAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }, { type: "inside", yAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
        series: [graticule, group(false), group(true)],
      }, { notMerge: true });
    },
  },
};
