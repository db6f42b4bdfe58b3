/**
 * JSON for terminals and logs. Of the characters that a terminal obeys JSON.stringify escapes the
 * first 32 only.
 */

// Outside of strings JSON has none of these.
const ESCAPED = /[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** The same document, with the rest escaped, too. */
export function harmlessJson(json: string): string {
  return json.replace(ESCAPED, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
}
