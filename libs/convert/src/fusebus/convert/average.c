/* PNG's average filter (PNG specification, 9.4): each byte less the mean, rounded down, of those to its left and above. */
#include <stddef.h>
#include <stdint.h>

/* Filter `count` rows of `width` bytes, one behind the other, with another row before them.
 *
 * pixel  bytes of a pixel; the first one of a row has zeros to its left
 * out    `count` rows of `width` + 1 bytes: the first byte of each is the caller's
 */
void fusebus_average(const uint8_t *rows, size_t width, size_t count, size_t pixel, uint8_t *out) {
    for (; count > 0; count--, rows += width, out += width + 1) {
        const uint8_t *restrict above = rows - width, *restrict left = rows - pixel, *restrict row = rows;
        uint8_t *restrict to = out + 1;
        for (size_t x = 0; x < pixel && x < width; x++) to[x] = (uint8_t)(row[x] - (above[x] >> 1));
        for (size_t x = pixel; x < width; x++) /* the mean without a ninth bit, so that bytes stay bytes in a vector */
            to[x] = (uint8_t)(row[x] - (uint8_t)((left[x] & above[x]) + ((left[x] ^ above[x]) >> 1)));
    }
}
