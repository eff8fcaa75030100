/** YAML of agents: mappings, lists, strings (also `|` and `>`), flow style. All else is refused with a reason. */

const PLAIN = /^[^\s\-?:,[\]{}#&*!|>'"%@`\u0000-\u001f][^#:\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff]*$/;
const WORD = /^(?:~|null|true|false|yes|no|on|off|y|n|[-+.]?(?:\d|\.inf|\.nan).*|=|<<)$/i;

/** @param {string} text @param {string} indent */
function scalar(text, indent) {
  if (text.includes('\n') && !/[^\S\n]\n|\r|^[\s]/.test(text) && !/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029\ufeff]/.test(text)) {
    const kept = text.endsWith('\n\n') || text === '\n' ? '+' : text.endsWith('\n') ? '' : '-';
    const lines = (kept === '-' ? text : text.slice(0, -1)).split('\n');
    return `|${kept}\n${lines.map((line) => (line ? `${indent}  ${line}` : '')).join('\n')}`;
  }
  return PLAIN.test(text) && !WORD.test(text) && text.trim() === text ? text : quote(text);
}

/** @param {string} text */
const quote = (text) => JSON.stringify(text).replace(/[\u007f-\u009f\u2028\u2029\ufeff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

/** @param {any} value @param {string} [indent] @returns {string} */
export function dump(value, indent = '') {
  if (typeof value === 'string') return scalar(value, indent.slice(2));
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const entries = Array.isArray(value) ? value.map((one) => ['-', one]) : Object.entries(value).map(([k, v]) => [`${scalar(k, '')}:`, v]);
  if (!entries.length) return Array.isArray(value) ? '[]' : '{}';
  return entries.map(([head, one]) => {
    const nested = one !== null && typeof one === 'object' && Object.keys(one).length > 0;
    const text = dump(one, `${indent}  `);
    if (!nested) return `${indent}${head} ${text}`;
    return head === '-' ? `${indent}- ${text.trimStart()}` : `${indent}${head}\n${text}`;
  }).join('\n');
}

/** The value of an unquoted scalar. @param {string} text */
function plain(text) {
  if (/^(?:null|~|)$/i.test(text)) return null;
  if (/^(?:true|false)$/i.test(text)) return text.toLowerCase() === 'true';
  return /^[-+]?(?:0|[1-9]\d*)(?:\.\d*)?(?:e[-+]?\d+)?$/i.test(text) ? Number(text) : text;
}

/** Flow style as JSON: strings may have single quotes or none. @param {string} text */
const flow = (text) => text.replace(/"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s,:[\]{}"'&*!|>%@`#](?:[^,:[\]{}\n]|:(?=\S))*/g, (one) => (one[0] === '"' ? one
  : JSON.stringify(one[0] === "'" ? one.slice(1, -1).replaceAll("''", "'") : plain(one.trim()))));

const KEY = /^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s"'\-?[\]{}#&*!|>%@`,][^:#]*?|-[^\s:#][^:#]*?)\s*:(?:\s+(.*)|)$/s;

class Reader {
  /** @param {string} text */
  constructor(text) {
    this.lines = text.replace(/^\ufeff/, '').split(/\r?\n/);
    this.at = 0;
  }

  /** @param {string} message @returns {never} */
  fail(message, at = this.at) {
    throw new Error(`Line ${at + 1}: ${message}`);
  }

  /** The indentation of the next line with content, -1 at the end. */
  next() {
    while (this.at < this.lines.length) {
      const line = this.lines[this.at];
      if (line.trim() && !/^\s*#/.test(line) && !(this.at === 0 && line.trim() === '---')) {
        const indent = /** @type {RegExpExecArray} */ (/^ */.exec(line))[0].length;
        if (line[indent] === '\t') this.fail('tabs can’t indent');
        if (/^(---|\.\.\.)(\s|$)/.test(line)) this.fail('only one document is supported');
        return indent;
      }
      this.at += 1;
    }
    return -1;
  }

  /** @param {number} indent @returns {any} */
  block(indent) {
    const text = this.lines[this.at].slice(indent);
    if (/^-(\s|$)/.test(text)) return this.list(indent);
    if (KEY.test(uncomment(text))) return this.mapping(indent);
    this.at += 1;
    return this.value(text, indent - 1, this.at - 1);
  }

  /** @param {number} indent */
  list(indent) {
    const out = [];
    while (this.next() === indent && /^-(\s|$)/.test(this.lines[this.at].slice(indent))) {
      const line = this.lines[this.at];
      const rest = line.slice(indent + 1).trim();
      if (!rest || rest.startsWith('#')) {
        this.at += 1;
        const deeper = this.next();
        out.push(deeper > indent ? this.block(deeper) : null);
      } else {
        this.lines[this.at] = `${line.slice(0, indent)} ${line.slice(indent + 1)}`;
        out.push(this.block(this.next()));
      }
    }
    return out;
  }

  /** @param {number} indent */
  mapping(indent) {
    /** @type {Record<string, any>} */
    const out = {};
    while (this.next() === indent) {
      const match = KEY.exec(uncomment(this.lines[this.at].slice(indent)));
      if (!match) this.fail('a key and a colon are expected');
      const name = String(/^["']/.test(match[1]) ? this.quoted(match[1]) : match[1]);
      if (Object.hasOwn(out, name)) this.fail(`duplicate key ${name}`);
      const from = this.at;
      this.at += 1;
      let value = null;
      if (match[2]) value = this.value(match[2], indent, from);
      else {
        const deeper = this.next();
        const dash = deeper === indent && /^-(\s|$)/.test(this.lines[this.at].slice(indent));
        if (deeper > indent || dash) value = this.block(deeper);
      }
      Object.defineProperty(out, name, { value, enumerable: true, configurable: true, writable: true });
    }
    if (this.next() > indent) this.fail('unexpected indentation');
    return out;
  }

  /** @param {string} text @param {number} indent of the line's key @param {number} from @returns {any} */
  value(text, indent, from) {
    const block = /^([|>])([+-]?)\s*(?:#.*)?$/.exec(text);
    if (block) return this.literal(block[1], block[2], indent);
    let whole = uncomment(text).trim();
    if (/^[&*!]/.test(whole)) this.fail('anchors and tags are not supported', from);
    if (/^[[{]/.test(whole)) {
      for (;;) {
        try {
          return JSON.parse(flow(whole));
        } catch {
          if (this.next() <= indent && !/^\s*[\]}]/.test(this.lines[this.at] ?? '')) this.fail('invalid flow style', from);
          whole += `\n${uncomment(this.lines[this.at])}`;
          this.at += 1;
        }
      }
    }
    if (/^["']/.test(whole)) { this.at = from; const found = this.quoted(whole); this.at = from + 1; return found; }
    while (this.next() > indent) { whole += ` ${uncomment(this.lines[this.at]).trim()}`; this.at += 1; }
    if (/:(\s|$)/.test(whole)) this.fail('a string with a colon needs quotes', from);
    return plain(whole);
  }

  /** @param {string} text */
  quoted(text) {
    if (text[0] === "'" && /^'(?:[^']|'')*'$/.test(text)) return text.slice(1, -1).replaceAll("''", "'");
    try {
      return JSON.parse(text);
    } catch {
      return this.fail('invalid quoted string');
    }
  }

  /** @param {string} kind @param {string} chomp @param {number} indent */
  literal(kind, chomp, indent) {
    const lines = [];
    let own = -1;
    while (this.at < this.lines.length) {
      const line = this.lines[this.at];
      const depth = line.search(/\S/);
      if (depth >= 0 && own < 0) own = depth;
      if (depth >= 0 && (depth <= indent || depth < own)) break;
      lines.push(depth < 0 ? '' : line.slice(own));
      this.at += 1;
    }
    let text = lines.join('\n');
    const ends = /** @type {RegExpExecArray} */ (/\n*$/.exec(text))[0].length;
    text = text.slice(0, text.length - ends);
    if (kind === '>') text = text.replace(/(\S)\n(?=\S)/g, '$1 ').replace(/\n(\n+)/g, '$1');
    if (chomp === '-') return text;
    const last = this.at >= this.lines.length ? 0 : 1;
    return text + (chomp === '+' ? '\n'.repeat(ends + last) : text && '\n');
  }
}

/** @param {string} line */
function uncomment(line) {
  if (!line.includes('#')) return line;
  const quoted = /^\s*(?:[^\s"'#][^"'#]*:\s+)?(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*(#.*)?$/.exec(line);
  if (quoted) return quoted[1] ? line.slice(0, -quoted[1].length).trimEnd() : line;
  return line.replace(/\s+#.*$/, '');
}

/** @param {string} text @returns {any} */
export function load(text) {
  const reader = new Reader(text);
  const indent = reader.next();
  if (indent < 0) return null;
  const found = reader.block(indent);
  if (reader.next() >= 0) reader.fail('unexpected line');
  return found;
}
