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
      const step = STEPS.find((s) => (north - south) / s <= 5) ?? 60;
      const text = { color: c("ink-faint"), fontSize: 10, fontFamily: "inherit" };
      const axis = (min, max, plus, minus) => ({ type: "value", min, max, interval: step, axisLine: { show: false }, axisTick: { show: false }, axisLabel: { show: false }, splitLine: { show: false }, zlevel: 0, name: `${plus}${minus}`, nameTextStyle: { color: "transparent" } });
      const lines = [];
      for (let v = Math.ceil(west / step) * step; v < east; v += step) lines.push([{ coord: [v, south] }, { coord: [v, north], name: degrees(((v + 540) % 360) - 180, "E", "W") }]);
      for (let v = Math.ceil(south / step) * step; v < north; v += step) lines.push([{ coord: [west, v] }, { coord: [east, v], name: degrees(v, "N", "S") }]);
      const graticule = { silent: true, animation: false, symbol: "none", lineStyle: { color: c("line"), type: "solid", width: 1 }, data: lines.map(([a, b]) => [a, { ...b, label: { show: true } }]) };
      const group = (online) => ({
        type: "scatter", name: online ? "online" : "offline", progressive: 2000, symbolSize: this.list.length > 500 ? 6 : 10, z: online ? 3 : 2,
        itemStyle: { color: online ? c("good") : c("surface"), borderColor: online ? c("surface") : c("idle"), borderWidth: 1.5 },
        data: this.list.filter((p) => p[3] === online),
      });
      graticule.label = { show: true, position: "insideEndTop", ...text, formatter: (p) => p.data?.name ?? "" };
      this.chart.setOption({
        animation: false, backgroundColor: c("sunken"),
        grid: { left: 0, right: 0, top: 0, bottom: 0 },
        xAxis: axis(west, east, "E", "W"), yAxis: axis(south, north, "N", "S"),
        tooltip: { trigger: "item", confine: true, backgroundColor: c("raised"), borderColor: c("line-strong"), padding: [4, 8], textStyle: { color: c("ink"), fontSize: 12, fontFamily: "inherit" },
          formatter: (p) => p.value ? `<b>${echarts.format.encodeHTML(String(p.value[2]))}</b> ${p.seriesName}<br><span style="opacity:.7">${degrees(p.value[1], "N", "S")}, ${degrees(p.value[0], "E", "W")}</span>` : "" },
        dataZoom: [{ type: "inside", xAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }, { type: "inside", yAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false }],
        series: [{ ...group(false), markLine: graticule }, group(true)],
      }, { notMerge: true });
    },
  },
};
