/* Compares the functions of src/memory.c with those of the C library, at every length and place that takes another way through them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define memcpy kaleem_memcpy
#define memmove kaleem_memmove
#define memcmp kaleem_memcmp
#define bcmp kaleem_bcmp
#include "../src/memory.c"
#undef memcpy
#undef memmove
#undef memcmp
#undef bcmp

enum { MOST = 1100, ROOM = 2 * MOST + 512 };
static unsigned char before[ROOM], ours[ROOM], theirs[ROOM];

static void fail(const char *what, size_t count, size_t to, size_t from)
{
    printf("%s is wrong for %zu bytes from %zu to %zu\n", what, count, from, to);
    exit(1);
}

static void move(int overlaps, size_t to, size_t from, size_t count)
{
    memcpy(ours, before, ROOM);
    memcpy(theirs, before, ROOM);
    void *answer = overlaps ? kaleem_memmove(ours + to, ours + from, count) : kaleem_memcpy(ours + to, ours + from, count);
    memmove(theirs + to, theirs + from, count);
    if (answer != ours + to || memcmp(ours, theirs, ROOM) != 0)
        fail(overlaps ? "memmove" : "memcpy", count, to, from);
}

static int sign(int value)
{
    return (value > 0) - (value < 0);
}

int main(void)
{
    for (size_t i = 0; i < ROOM; i++)
        before[i] = (unsigned char)(i * 31 + (i >> 8) * 7);
    for (size_t count = 0; count <= MOST; count++) {
        for (size_t shift = 0; shift < 17; shift += 1 + (count > 80) * 5) {
            move(0, MOST + 256 + shift, 16 - shift % 16, count);
            move(1, MOST + 256 + shift, 16 - shift % 16, count);
        }
        for (size_t distance = 0; distance <= 70; distance += 1 + (count > 140) * 6) {
            move(1, 200 + distance, 200, count);
            move(1, 200, 200 + distance, count);
        }
    }
    for (size_t count = 0; count <= 64; count++) {
        for (size_t at = 0; at <= count; at++) {
            for (int change = -1; change <= 1; change++) {
                memcpy(ours, before, count + 1);
                memcpy(theirs, before, count + 1);
                theirs[at] = (unsigned char)(theirs[at] + change * 100);
                int expected = sign(memcmp(ours, theirs, count));
                if (sign(kaleem_memcmp(ours, theirs, count)) != expected || (kaleem_bcmp(ours, theirs, count) != 0) != (expected != 0))
                    fail("memcmp", count, at, 0);
            }
        }
    }
    printf("right\n");
    return 0;
}
