/**
 * PEM texts (RFC 7468).
 *
 * @module
 */

/** The PEM text of some bytes, in lines of 64 characters. */
export function encodePem(label: string, der: Uint8Array): string {
  const base64 = btoa(Array.from(der, (byte) => String.fromCharCode(byte)).join(""));
  const lines = base64.replace(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

/** The bytes of every block of this label, in order; what can't be decoded is left out. */
export function decodePem(label: string, text: string): Uint8Array[] {
  const blocks: Uint8Array[] = [];
  const begin = `-----BEGIN ${label}-----`;
  for (const part of text.split(begin).slice(1)) {
    const end = part.indexOf(`-----END ${label}-----`);
    const bytes = end < 0 ? undefined : decodeBase64(part.slice(0, end));
    if (bytes !== undefined) blocks.push(bytes);
  }
  return blocks;
}

function decodeBase64(text: string): Uint8Array | undefined {
  try {
    return Uint8Array.from(atob(text.replace(/\s/g, "")), (char) => char.charCodeAt(0));
  } catch {
    return undefined;
  }
}
