/* The peer's client: does to libvirtd what `xtask bench` does to our server.
 *
 *   calls URI CONNECTIONS SECONDS [DOMAIN]  virDomainGetInfo on each connection, one thread each
 *   lists URI CONNECTIONS SECONDS   virConnectListAllDomains on each connection, one thread each
 *   opens URI 1 SECONDS             virConnectOpen and virConnectClose, one after another
 *   holds URI CONNECTIONS           opens them, prints one line, keeps them until stdin ends
 *
 * calls, lists and opens write binary to stdout, in the machine's byte order: the nanoseconds from the
 * first call to the last (64 bits), then the nanoseconds of every call (32 bits each). Sorting and
 * dividing is left to xtask, so that both sides are counted by the same code.
 */
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct caller {
    pthread_t thread;
    virConnectPtr connection;
    virDomainPtr domain;
    uint32_t *took;
    size_t calls;
    uint64_t ended;
};

static const char *uri;
static int opening, listing;
static uint64_t length;
static pthread_barrier_t start;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void need(int ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "libvirt_load: %s failed\n", what);
        exit(1);
    }
}

static virConnectPtr opened(void) {
    virConnectPtr connection = virConnectOpen(uri);
    need(connection != NULL, "virConnectOpen");
    return connection;
}

/* One call; the clock is around this. */
static void call(struct caller *c) {
    virDomainInfo info;
    if (opening)
        need(virConnectClose(opened()) == 0, "virConnectClose");
    else if (listing) {
        virDomainPtr *all;
        int count = virConnectListAllDomains(c->connection, &all, 0);
        need(count >= 0, "virConnectListAllDomains");
        for (int i = 0; i < count; i++)
            virDomainFree(all[i]);
        free(all);
    }
    else
        need(virDomainGetInfo(c->domain, &info) == 0, "virDomainGetInfo");
}

static void *run(void *argument) {
    struct caller *c = argument;
    size_t room = 0;
    call(c);
    pthread_barrier_wait(&start);
    uint64_t before = now(), end = before + length;
    do {
        if (c->calls == room) {
            room = room ? 2 * room : 65536;
            need((c->took = realloc(c->took, room * sizeof *c->took)) != NULL, "realloc");
        }
        call(c);
        uint64_t after = now();
        c->took[c->calls++] = after - before < UINT32_MAX ? (uint32_t)(after - before) : UINT32_MAX;
        before = after;
    } while (before < end);
    c->ended = before;
    return NULL;
}

int main(int argc, char **argv) {
    need(argc >= 4, "usage: libvirt_load calls|opens|holds URI CONNECTIONS [SECONDS]");
    uri = argv[2];
    opening = strcmp(argv[1], "opens") == 0;
    listing = strcmp(argv[1], "lists") == 0;
    const char *name = argc > 5 ? argv[5] : "test";
    int count = atoi(argv[3]), holding = strcmp(argv[1], "holds") == 0;
    struct caller *callers = calloc((size_t)count, sizeof *callers);
    need(count > 0 && callers != NULL, "calloc");
    for (int i = 0; i < count && !opening; i++) {
        callers[i].connection = opened();
        if (!holding && !listing)
            need((callers[i].domain = virDomainLookupByName(callers[i].connection, name)) != NULL, "look-up");
    }
    if (holding) {
        puts("held");
        fflush(stdout);
        while (getchar() != EOF) {}
        return 0; /* the daemon sees every connection end */
    }
    need(argc == 5 || argc == 6, "SECONDS");
    length = (uint64_t)(atof(argv[4]) * 1e9);
    pthread_barrier_init(&start, NULL, (unsigned)count + 1);
    for (int i = 0; i < count; i++)
        need(pthread_create(&callers[i].thread, NULL, run, &callers[i]) == 0, "pthread_create");
    pthread_barrier_wait(&start);
    uint64_t began = now(), ended = began;
    for (int i = 0; i < count; i++) {
        pthread_join(callers[i].thread, NULL);
        if (callers[i].ended > ended)
            ended = callers[i].ended;
    }
    uint64_t took = ended - began;
    need(fwrite(&took, sizeof took, 1, stdout) == 1, "write");
    for (int i = 0; i < count; i++)
        need(fwrite(callers[i].took, sizeof *callers[i].took, callers[i].calls, stdout) == callers[i].calls, "write");
    return fflush(stdout) != 0;
}
