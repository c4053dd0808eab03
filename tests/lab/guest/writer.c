/* The load inside the lab guest, written so that any cut of its disks can be judged from outside.
 *
 *   writer order DISK_A DISK_B RATE   record n to A, then record n to B, then n + 1 ...
 *   writer files DIRECTORY RATE       file n, then line n of the log, then n + 1 ...
 *
 * RATE is in records a second, 0 for as fast as it goes. Every step is on stable storage before the next one begins.
 * checks.py reads what is written here; the two must agree.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, STRIDE = 4096, SLOTS = 1024, LINE = 64, KEPT = 64, LARGEST = 32768 };

struct record {
    char magic[8];
    uint64_t sequence;
    uint32_t slots;
    uint32_t disk;
    uint8_t payload[484];
    uint32_t checksum;
};
_Static_assert(sizeof(struct record) == SECTOR, "a record fills one sector");

static void say(const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text - 1, format, arguments);
    va_end(arguments);
    text[length++] = '\n';
    if (write(STDOUT_FILENO, text, length) != length)
        exit(3);
}

static void die(const char *what)
{
    say("writer: %s: %s", what, strerror(errno));
    exit(2);
}

static uint32_t crc32(const uint8_t *data, size_t size)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ 0xEDB88320u : value >> 1;
            table[i] = value;
        }
    uint32_t crc = 0xFFFFFFFFu;
    while (size--)
        crc = table[(crc ^ *data++) & 255] ^ crc >> 8;
    return ~crc;
}

/* Bytes that differ for every sequence number. */
static void fill(uint8_t *data, size_t size, uint64_t sequence)
{
    uint64_t state = sequence * 0x9E3779B97F4A7C15ull + 1;
    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = (uint8_t)state;
    }
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* Keeps to the rate, and says once a second how far the writer is. */
static void pace(const char *name, uint64_t sequence, uint64_t rate)
{
    static uint64_t said;
    uint64_t now = now_ns();
    if (now - said >= 1000000000ull) {
        say("%s: at %llu", name, (unsigned long long)sequence);
        said = now;
    }
    if (rate)
        usleep(1000000 / rate);
}

static void put(int fd, uint32_t disk, const char *magic, off_t offset, uint64_t sequence)
{
    static struct record record __attribute__((aligned(4096)));
    memcpy(record.magic, magic, sizeof record.magic);
    record.sequence = sequence;
    record.slots = SLOTS;
    record.disk = disk;
    fill(record.payload, sizeof record.payload, sequence);
    record.checksum = crc32((uint8_t *)&record, sizeof record - sizeof record.checksum);
    if (pwrite(fd, &record, SECTOR, offset) != SECTOR)
        die(disk ? "write to disk B" : "write to disk A");
}

static void put_both(int fd, uint32_t disk, uint64_t sequence)
{
    put(fd, disk, "SFRECORD", STRIDE * (1 + (off_t)(sequence % SLOTS)), sequence);
    put(fd, disk, "SFHEADER", 0, sequence);
}

/* The sequence number in a disk's header: 0 for a blank disk, -1 for a header that is not whole. */
static int64_t position(int fd)
{
    static struct record record __attribute__((aligned(4096)));
    static const struct record blank;
    if (pread(fd, &record, SECTOR, 0) != SECTOR)
        die("read of a header");
    if (!memcmp(&record, &blank, sizeof record))
        return 0;
    if (record.checksum != crc32((uint8_t *)&record, sizeof record - sizeof record.checksum))
        return -1;
    return (int64_t)record.sequence;
}

static int order(const char *path_a, const char *path_b, uint64_t rate)
{
    int a = open(path_a, O_RDWR | O_DIRECT | O_DSYNC), b = open(path_b, O_RDWR | O_DIRECT | O_DSYNC);
    if (a < 0 || b < 0)
        die("open of a disk");
    int64_t at_a = position(a), at_b = position(b);
    if (at_a < 0 || at_b < 0 || at_a < at_b || at_a > at_b + 1) {
        say("order: BROKEN at A=%lld B=%lld, nothing is written", (long long)at_a, (long long)at_b);
        return 1;
    }
    say("order: starts from A=%lld B=%lld", (long long)at_a, (long long)at_b);
    if (at_b < at_a)
        put_both(b, 1, at_a);
    for (uint64_t sequence = at_a + 1;; sequence++) {
        put_both(a, 0, sequence);
        put_both(b, 1, sequence);
        pace("order", sequence, rate);
    }
}

static void put_file(int directory, uint64_t sequence, char line[LINE + 1])
{
    static uint8_t content[LINE + LARGEST];
    char name[32];
    uint32_t size = 1 + (uint32_t)((sequence * 2654435761u) % LARGEST);
    fill(content + LINE, size, sequence);
    int length = snprintf(line, LINE + 1, "%020llu %08u %08x", (unsigned long long)sequence, size,
                          crc32(content + LINE, size));
    memset(line + length, ' ', LINE - length - 1);
    line[LINE - 1] = '\n';
    memcpy(content, line, LINE);
    int fd = openat(directory, "new", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, content, LINE + size) != (ssize_t)(LINE + size) || fsync(fd) || close(fd))
        die("write of a file");
    snprintf(name, sizeof name, "%020llu", (unsigned long long)sequence);
    if (renameat(directory, "new", directory, name) || fsync(directory))
        die("rename of a file");
}

static _Noreturn void files(const char *path, uint64_t rate)
{
    char line[LINE + 1], name[32];
    if ((mkdir(path, 0755) && errno != EEXIST) || chdir(path))
        die("directory");
    int directory = open(".", O_RDONLY | O_DIRECTORY), log = open("log", O_RDWR | O_CREAT, 0644);
    struct stat status;
    if (directory < 0 || log < 0 || fstat(log, &status))
        die("log");
    uint64_t sequence = status.st_size / LINE;
    say("files: starts from %llu", (unsigned long long)sequence);
    for (;;) {
        sequence++;
        put_file(directory, sequence, line);
        if (pwrite(log, line, LINE, (off_t)(sequence - 1) * LINE) != LINE || fsync(log))
            die("write of the log");
        if (sequence > KEPT) {
            snprintf(name, sizeof name, "%020llu", (unsigned long long)(sequence - KEPT));
            if (unlink(name) && errno != ENOENT)
                die("removal of a file");
        }
        pace("files", sequence, rate);
    }
}

int main(int count, char **arguments)
{
    if (count == 5 && !strcmp(arguments[1], "order"))
        return order(arguments[2], arguments[3], strtoull(arguments[4], NULL, 10));
    if (count == 4 && !strcmp(arguments[1], "files"))
        files(arguments[2], strtoull(arguments[3], NULL, 10));
    say("writer: usage: writer order A B RATE | writer files DIRECTORY RATE");
    return 64;
}
