/** XML as text, for the writers. */
import { DiskError } from '../common/errors.js';

type Attributes = Readonly<Record<string, string | number>>;

/**
 * Text for an element or between the quotes of an attribute.
 * @throws DiskError `not-supported` for control characters, which XML 1.0 cannot hold.
 */
export function xmlText(text: string): string {
  if (/\p{Cc}/u.test(text)) {
    throw new DiskError('not-supported', `XML cannot hold ${JSON.stringify(text)}`, {
      hint: 'choose a path without control characters',
    });
  }
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** An element that holds text. */
export function textElement(name: string, text: string | number, attributes?: Attributes): string {
  return `${openTag(name, attributes)}>${xmlText(String(text))}</${name}>`;
}

/** An element that holds elements, one a line; without any it is empty. */
export function element(
  name: string,
  attributes: Attributes = {},
  children: readonly string[] = [],
): string {
  if (children.length === 0) return `${openTag(name, attributes)}/>`;
  const inner = children.flatMap((child) => child.split('\n')).map((line) => `  ${line}`);
  return [`${openTag(name, attributes)}>`, ...inner, `</${name}>`].join('\n');
}

function openTag(name: string, attributes: Attributes = {}): string {
  const all = Object.entries(attributes).map(([key, value]) => ` ${key}="${xmlText(`${value}`)}"`);
  return `<${name}${all.join('')}`;
}
