/**
 * Comparison of secrets.
 *
 * @module
 */

/** More than a token in a handshake message (4096 bytes) can have: all those take the same time. */
const PADDED_BYTES = 4096;

/** Whether two texts are equal, in a time that doesn't tell where or by how much they differ. */
export function equalSecrets(given: string, expected: string): boolean {
  const encoder = new TextEncoder();
  const a = encoder.encode(given);
  const b = encoder.encode(expected);
  const length = Math.max(PADDED_BYTES, a.length, b.length);
  const paddedA = pad(a, length);
  const paddedB = pad(b, length);
  let difference = a.length ^ b.length;
  for (let i = 0; i < length; i++) difference |= paddedA[i]! ^ paddedB[i]!;
  return difference === 0;
}

function pad(bytes: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length);
  padded.set(bytes);
  return padded;
}
