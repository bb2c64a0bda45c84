/**
 * The Huffman code of header texts (RFC 7541, appendix B), to read what others have written with it.
 *
 * @module
 */

import { TransportError } from "../errors.ts";

/**
 * How many bits the code of each byte has, a letter each: "A" is 5. The code is canonical: codes of
 * one length ascend with the bytes, and longer ones follow, so that the lengths say all.
 */
const LENGTHS = "ISXXXXXXXTZXXZXXXXXXXXZXXXXXXXXXBFFHIBDGFFDGDBBBAAABBBBBBBCDKBHF" +
  "IBCCCCCCCCCCCCCCCCCCCCCCDCDIOIJBKABABABBBACCBBBABCBAABCCCCCKGJIX" +
  "PRPPRRRSRSSSSSTSTTRSTSSSSQRSRSSTRQPRRSSQSRRTQRSSQQRQSRSSPRRRSRRS" +
  "VVPORSRUVVVWWVTUOQVWWVWTQQVVXWWWPTPQRQQSRRUUTTVSVWVVWWWWWXWWWWWV";
const MIN_BITS = 5;
const MAX_BITS = 30;
/** Padding is the start of the longest code, all ones, and shorter than a byte. */
const MAX_PADDING_BITS = 7;

/** Bytes in the order of their codes. */
const BYTES: readonly number[] = [...LENGTHS].map((_, byte) => byte)
  .sort((a, b) => bitsOf(a) - bitsOf(b) || a - b);
/** For each length the first code that has it, how many have it, and where they begin in BYTES. */
const FIRST: number[] = [];
const COUNT: number[] = [];
const START: number[] = [];

for (let bits = 0, code = 0, start = 0; bits <= MAX_BITS; bits++) {
  code *= 2;
  const count = BYTES.filter((byte) => bitsOf(byte) === bits).length;
  FIRST.push(code);
  COUNT.push(count);
  START.push(start);
  code += count;
  start += count;
}

function bitsOf(byte: number): number {
  return LENGTHS.charCodeAt(byte) - 65 + MIN_BITS;
}

/**
 * The text of Huffman-coded bytes, a character for each byte.
 *
 * @throws {TransportError} `InvalidFrame`: the end of the text is coded, or it ends within a code
 */
export function decodeHuffman(coded: Uint8Array): string {
  let text = "";
  let code = 0;
  let bits = 0;
  for (const byte of coded) {
    for (let bit = 7; bit >= 0; bit--) {
      code = code * 2 + ((byte >>> bit) & 1);
      bits++;
      const index = code - FIRST[bits]!;
      if (index >= 0 && index < COUNT[bits]!) {
        text += String.fromCharCode(BYTES[START[bits]! + index]!);
        code = bits = 0;
      } else if (bits === MAX_BITS) {
        throw new TransportError("InvalidFrame", "a header's Huffman code is none");
      }
    }
  }
  if (bits > MAX_PADDING_BITS || code !== 2 ** bits - 1) {
    throw new TransportError("InvalidFrame", "a header's Huffman code ends early");
  }
  return text;
}
