/**
 * What the contract asserts with: it runs under any test runner.
 *
 * @module
 */

/** Throws where a condition does not hold. */
export function check(condition: boolean, text: string): asserts condition {
  if (!condition) throw new Error(text);
}

/** Throws where two values differ; arrays are compared by their elements. */
export function same(actual: unknown, expected: unknown, what: string): void {
  if (equal(actual, expected)) return;
  throw new Error(`${what}: expected ${show(expected)}, got ${show(actual)}`);
}

/** Resolves to what a promise rejects with; throws where it does not. */
export async function rejection(promise: Promise<unknown>, what: string): Promise<unknown> {
  const outcome = await promise.then(() => undefined, (error) => ({ error }));
  check(outcome !== undefined, `${what} did not fail`);
  return outcome.error;
}

/** Whether two arrays have the same bytes. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}

function equal(a: unknown, b: unknown): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return equalBytes(a, b);
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((value, index) => equal(value, b[index]));
  }
  return Object.is(a, b);
}

function show(value: unknown): string {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (Array.isArray(value)) return `[${value.map(show).join(", ")}]`;
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}
