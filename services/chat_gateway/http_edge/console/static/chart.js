/** A chart over the last hour, with its latest values as text. */
import { duration, html, useEffect, useRef } from './lib.js';

const HEIGHT = 150;

/** @param {string} name */
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Points without neighbours, which no line shows. @param {Plot} plot @param {number} series */
const lonely = (plot, series) => plot.data[series].flatMap((value, i, all) => (value != null && all[i - 1] == null && all[i + 1] == null ? [i] : []));

/** @param {ChartProps} p */
export function Chart({ title, times, lines, timed = false }) {
  const box = useRef(null);
  const plot = useRef(null);
  const data = [times, ...lines.map((one) => one.values)];
  /** @type {Act} */ const show = (value) => (timed ? duration(value) : value == null ? '–' : `${+value.toPrecision(3)}`);
  useEffect(() => {
    const element = box.current;
    let gone = false;
    const size = () => ({ width: element.clientWidth, height: HEIGHT });
    import('./vendor/uplot.js').then(({ default: Plot }) => {
      if (gone) return;
      const axis = { stroke: color('--dim'), grid: { stroke: color('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui' };
      const series = lines.map(({ label, tint }) => ({ label, stroke: color(tint), width: 2, points: { show: true, size: 5, fill: color(tint), filter: lonely }, fill: lines.length === 1 ? `${color(tint)}22` : undefined }));
      plot.current = new /** @type {any} */ (Plot)({ ...size(), legend: { show: false }, cursor: { show: false }, series: [{}, ...series],
        axes: [{ ...axis, size: 38 }, { ...axis, size: 52, values: (/** @type {any} */ _, /** @type {any[]} */ ticks) => ticks.map(show) }], scales: { y: { range: (/** @type {any[]} */ ...[, , high]) => [0, Math.max(high ?? 0, 1) * 1.1] } } }, data, element);
    });
    const watch = new ResizeObserver(() => plot.current?.setSize(size()));
    watch.observe(element);
    return () => { gone = true; watch.disconnect(); plot.current?.destroy(); };
  }, [lines.length]);
  useEffect(() => plot.current?.setData(data), [times.at(-1)]);
  const last = lines.map((one) => `${lines.length > 1 ? `${one.label} ` : ''}${show(one.values.findLast((value) => value != null))}`).join(', ');
  return html`<figure class="card chart"><figcaption><h2>${title}</h2><span class="dim">${last}</span></figcaption>
    <div ref=${box} role="img" aria-label=${`${title} over the last hour; now ${last}`}></div></figure>`;
}
