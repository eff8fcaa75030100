/** A safe subset of Markdown, made into elements, never HTML: text of models and users can’t become markup. */
import { clean, html } from './lib.js';

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|(?<![\w*])\*([^*\s][^*\n]*)\*|\[([^\]\n]{1,500})\]\((https?:\/\/[^\s)]{1,2000})\)|(https?:\/\/[^\s<>"')\]]{1,2000})/g;
const MOST = 200_000;
const LONG_LINE = 20_000;

/** @param {string} address */
function anchor(address, text = address) {
  return html`<a href=${address} target="_blank" rel="noopener noreferrer nofollow">${text}</a>`;
}

/** @param {string} text */
function inline(text) {
  if (text.length > LONG_LINE) return text;
  const out = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, strong, emphasis, label, address, bare] = match;
    out.push(text.slice(end, match.index));
    end = match.index + whole.length;
    if (code) out.push(html`<code>${code}</code>`);
    else if (strong) out.push(html`<strong>${strong}</strong>`);
    else if (emphasis) out.push(html`<em>${emphasis}</em>`);
    else if (address) out.push(anchor(address, label));
    else out.push(anchor(bare));
  }
  out.push(text.slice(end));
  return out;
}

const FENCE = /^\s*(?:```|~~~)/;
const BULLET = /^\s*[-*+]\s+(.*)$/;
const NUMBER = /^\s*\d{1,9}[.)]\s+(.*)$/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const ROW = /^\s*\|(.*)\|\s*$/;

/** @param {string} line */
const cells = (line) => line.trim().slice(1, -1).split('|').map((cell) => cell.trim());

/** @param {string[]} lines */
function blocks(lines) {
  const out = [];
  /** @param {(line: string) => any} fits @param {number} from */
  const run = (fits, from) => {
    let to = from;
    while (to < lines.length && fits(lines[to])) to += 1;
    return to;
  };
  for (let i = 0; i < lines.length;) {
    const line = lines[i];
    let to = i + 1;
    const heading = HEADING.exec(line);
    if (FENCE.test(line)) {
      to = run((one) => !FENCE.test(one), i + 1);
      out.push(html`<pre tabindex="0"><code>${lines.slice(i + 1, to).join('\n')}</code></pre>`);
      to += 1;
    } else if (heading) {
      out.push(html`<p class="heading" dir="auto">${inline(heading[2])}</p>`);
    } else if (BULLET.test(line) || NUMBER.test(line)) {
      const kind = BULLET.test(line) ? BULLET : NUMBER;
      to = run((one) => kind.test(one), i);
      const items = lines.slice(i, to).map((one) => html`<li dir="auto">${inline(kind.exec(one)?.[1] ?? '')}</li>`);
      out.push(kind === BULLET ? html`<ul>${items}</ul>` : html`<ol>${items}</ol>`);
    } else if (line.startsWith('>')) {
      to = run((one) => one.startsWith('>'), i);
      out.push(html`<blockquote dir="auto">${inline(lines.slice(i, to).map((one) => one.replace(/^>\s?/, '')).join('\n'))}</blockquote>`);
    } else if (ROW.test(line) && /^[\s|:-]+$/.test(lines[i + 1] ?? '')) {
      to = run((one) => ROW.test(one), i);
      const [head, , ...rows] = lines.slice(i, to).map(cells);
      out.push(html`<div class="scroll" tabindex="0"><table><thead><tr>${head.map((c) => html`<th scope="col">${inline(c)}</th>`)}</tr></thead>
        <tbody>${rows.map((row) => html`<tr>${row.map((c) => html`<td>${inline(c)}</td>`)}</tr>`)}</tbody></table></div>`);
    } else if (line.trim()) {
      to = run((one) => one.trim() && !FENCE.test(one) && !HEADING.test(one) && !BULLET.test(one) && !NUMBER.test(one), i + 1);
      out.push(html`<p dir="auto">${inline(lines.slice(i, to).join('\n'))}</p>`);
    }
    i = to;
  }
  return out;
}

/** @param {MarkdownProps} p */
export function Markdown({ text }) {
  if (text.length > MOST) return html`<div class="plain scroll" tabindex="0" dir="auto">${clean(text)}</div>`;
  return html`<div class="markdown">${blocks(clean(text).split(/\r?\n/))}</div>`;
}
