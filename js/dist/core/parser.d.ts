/** Reads one stream; `feed` returns the data of each message that these bytes complete. */
export declare class Parser {
    #private;
    feed(bytes: Uint8Array): string[];
}
