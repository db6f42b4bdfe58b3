/** Columns and `name: value` lists for people. */
import { type Output, plain } from './output.js';

export interface Column<Row> {
  readonly title: string;
  readonly align?: 'right';
  cell(row: Row): string;
}

const GAP = '  ';

/**
 * Lines of a table with a bold header; columns as wide as their widest cell, none after the last.
 */
export function tableLines<Row>(
  output: Output,
  columns: readonly Column<Row>[],
  rows: readonly Row[],
): string[] {
  const body = rows.map((row) => columns.map((column) => plain(column.cell(row))));
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...body.map((cells) => width(cells[index] ?? ''))),
  );
  const format = (cells: readonly string[]): string =>
    columns
      .map((column, index) => pad(cells[index] ?? '', widths[index] ?? 0, column.align))
      .join(GAP)
      .trimEnd();
  const header = format(columns.map((column) => column.title));
  return [output.style('bold', header), ...body.map(format)];
}

/** Lines of `name: value`, values in one column; entries without a value are left out. */
export function fieldLines(
  output: Output,
  fields: readonly (readonly [name: string, value: string | undefined])[],
): string[] {
  const present = fields.filter((field) => field[1] !== undefined);
  const widest = Math.max(0, ...present.map(([name]) => name.length));
  return present.map(([name, value]) => {
    const label = `${name}:`.padEnd(widest + 1);
    return `${output.style('bold', label)} ${plain(value ?? '')}`;
  });
}

function pad(text: string, columns: number, align: 'right' | undefined): string {
  const space = ' '.repeat(Math.max(0, columns - width(text)));
  return align === 'right' ? space + text : text + space;
}

/** Columns on a terminal, taking every character for one wide; combining marks are not counted. */
function width(text: string): number {
  return [...text.replace(/\p{M}/gu, '')].length;
}
