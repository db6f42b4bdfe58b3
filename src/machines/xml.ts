/**
 * XML from untrusted files as a small tree: bounded in size, depth and elements, without document
 * types, so without entities of its own. The only file that imports the XML parser.
 */
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { textIn } from '../common/text-encoding.js';
import { damaged, unsupported } from '../formats/image-error.js';
import { quoteName } from '../formats/sibling-path.js';
import { entryOf } from './values.js';

/** Elements and end tags: thousands of snapshots' worth; an element takes some 500 bytes. */
const MAX_TAGS = 200_000;
/** VirtualBox nests two elements a snapshot, and allows 250 on each other. */
const MAX_DEPTH = 1000;
const MAX_ATTRIBUTES = 400_000;

const PREDEFINED: Readonly<Record<string, string>> = {
  lt: '<',
  gt: '>',
  amp: '&',
  quot: '"',
  apos: "'",
};

/** An element, by its name without the namespace's prefix. */
export class XmlElement {
  readonly name: string;
  readonly children: readonly XmlElement[];
  /** Of this element alone, white space at both ends taken off. */
  readonly text: string;
  readonly #attributes: ReadonlyMap<string, string>;

  constructor(
    name: string,
    attributes: ReadonlyMap<string, string>,
    children: readonly XmlElement[],
    text: string,
  ) {
    this.name = name;
    this.#attributes = attributes;
    this.children = children;
    this.text = text;
  }

  attribute(name: string): string | undefined {
    return this.#attributes.get(name);
  }

  /** The first child of that name. */
  child(name: string): XmlElement | undefined {
    return this.children.find((each) => each.name === name);
  }

  /** What is found by going down these names, the first of each. */
  find(...names: readonly string[]): XmlElement | undefined {
    let found: XmlElement | undefined = this;
    for (const name of names) found = found?.child(name);
    return found;
  }

  /** All children of one of these names. */
  all(...names: readonly string[]): XmlElement[] {
    return this.children.filter((each) => names.includes(each.name));
  }
}

/**
 * @param path names the document in errors.
 * @returns the root element.
 * @throws DiskError `damaged` for what is no XML, `not-supported` past the limits and for document
 * types.
 */
export function parseXml(path: string, bytes: Buffer): XmlElement {
  const text = decode(path, bytes);
  checkLimits(path, text);
  const verdict = XMLValidator.validate(text);
  if (verdict !== true) {
    const { msg, line } = verdict.err;
    throw damaged(path, `is no XML: line ${line}: ${quoteName(msg)}`);
  }
  const parser = new XMLParser({
    preserveOrder: true,
    ignoreAttributes: false,
    attributeNamePrefix: '',
    removeNSPrefix: true,
    parseTagValue: false,
    trimValues: false,
    processEntities: false,
    ignoreDeclaration: true,
    ignorePiTags: true,
    maxNestedTags: MAX_DEPTH,
  });
  let nodes: unknown;
  try {
    nodes = parser.parse(text);
  } catch (error) {
    // Nesting and names that JavaScript objects must not have; the parser's errors have no codes.
    const why = error instanceof Error ? error.message : String(error);
    throw damaged(path, `cannot be read as XML: ${quoteName(why)}`, error);
  }
  const [root] = elementsOf(nodes);
  if (root === undefined) throw damaged(path, 'is no XML: it has no element');
  return root;
}

function decode(path: string, bytes: Buffer): string {
  const head = bytes.toString('latin1', 0, 200);
  const isWide = head.startsWith('\xff\xfe') || head.startsWith('\xfe\xff');
  const wide = head.startsWith('\xff\xfe') ? 'utf-16le' : 'utf-16be';
  const label = isWide ? wide : (/^[^>]*encoding=["']([\w.:-]+)["']/.exec(head)?.[1] ?? 'utf-8');
  return decodeText(path, bytes, label);
}

/** @throws DiskError `not-supported` for an encoding that is not known. */
export function decodeText(path: string, bytes: Buffer, label: string): string {
  try {
    return textIn(label, bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw unsupported(path, `is written in the unknown encoding ${quoteName(label)}`);
  }
}

function checkLimits(path: string, text: string): void {
  if (/<!(DOCTYPE|ENTITY)/i.test(text)) {
    throw unsupported(
      path,
      'has a document type definition',
      'no hypervisor writes one: take it out if the file is yours, else do not trust it',
    );
  }
  if (countOf(text, '<') > MAX_TAGS) throw unsupported(path, `has more than ${MAX_TAGS} tags`);
  if (countOf(text, '=') > MAX_ATTRIBUTES) {
    throw unsupported(path, `has more than ${MAX_ATTRIBUTES} attributes`);
  }
}

function countOf(text: string, char: string): number {
  let count = 0;
  for (let at = text.indexOf(char); at >= 0; at = text.indexOf(char, at + 1)) count += 1;
  return count;
}

/** The parser's nodes: `{NAME: [nodes], ':@': {attributes}}` and `{'#text': text}`. */
function elementsOf(nodes: unknown): XmlElement[] {
  if (!Array.isArray(nodes)) return [];
  const elements: XmlElement[] = [];
  for (const node of nodes as readonly Record<string, unknown>[]) {
    const name = Object.keys(node).find((key) => key !== ':@' && key !== '#text');
    if (name === undefined) continue;
    const content = node[name];
    const attributes = new Map<string, string>();
    for (const [key, value] of Object.entries(node[':@'] ?? {})) {
      attributes.set(key, resolveReferences(String(value)));
    }
    elements.push(new XmlElement(name, attributes, elementsOf(content), textOf(content)));
  }
  return elements;
}

function textOf(nodes: unknown): string {
  if (!Array.isArray(nodes)) return '';
  const texts = (nodes as readonly Record<string, unknown>[]).map((node) => node['#text']);
  const joined = texts.filter((text) => text !== undefined).join('');
  return resolveReferences(joined).trim();
}

/** What XML itself predefines, and characters by number. */
function resolveReferences(text: string): string {
  return text.replace(/&(#x[0-9a-fA-F]{1,6}|#[0-9]{1,7}|\w+);/g, (whole, name: string) => {
    if (!name.startsWith('#')) return entryOf(PREDEFINED, name) ?? whole;
    const code = name[1] === 'x' ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1));
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
