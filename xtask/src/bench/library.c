/*
 * Exec round trips through the C library, and over a socket by hand: library SOCKET SECONDS
 * Prints two numbers: calls per second of the library, and of the socket.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <vmcontrol.h>

/* Seconds. */
#define TURN 0.02

#define REQUEST "<exec><op>inc</op><in><number>42</number></in></exec>"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void must(int yes, const char *what)
{
    if (!yes) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

/* Sends a text and reads until the answer ends so. */
static void ask(int fd, const char *text, const char *end)
{
    char buffer[4096];
    size_t filled = 0;
    must(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write");
    do {
        ssize_t length = read(fd, buffer + filled, sizeof buffer - filled);
        must(length > 0, "read");
        filled += (size_t)length;
    } while (filled < strlen(end) || memcmp(buffer + filled - strlen(end), end, strlen(end)) != 0);
}

static int by_hand(const char *path)
{
    struct sockaddr_un address;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    must(strlen(path) < sizeof address.sun_path, "path too long");
    strcpy(address.sun_path, path);
    must(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    ask(fd, "", "\r\n");
    ask(fd, "LOCAL\r\n", "\r\n");
    ask(fd, "GLOBAL server\r\n", "\r\n");
    return fd;
}

int main(int argc, char **argv)
{
    VMControlConnectParams *params = VMControl_ConnectParamsNew(NULL, 0, NULL, NULL);
    VMControlServer *server = VMControl_ServerNewEx();
    double seconds, start, began, library = 0, bare = 0, in_library = 0, on_socket = 0;
    int fd;

    must(argc == 3, "usage: library SOCKET SECONDS");
    seconds = atof(argv[2]);
    fd = by_hand(argv[1]);
    must(VMControl_ServerConnectEx(server, params), "VMControl_ServerConnectEx");
    /* In short turns: what else the machine does meets both alike. */
    for (start = now(); now() - start < 2 * seconds;) {
        for (began = now(); now() - began < TURN; library++) {
            char *reply = VMControl_ServerExec(server, REQUEST);
            must(reply && strstr(reply, "<number>43</number>") != NULL, "VMControl_ServerExec");
            free(reply);
        }
        in_library += now() - began;
        for (began = now(); now() - began < TURN; bare++)
            ask(fd, REQUEST "\n", "<number>43</number></out></exec>\n");
        on_socket += now() - began;
    }
    library /= in_library;
    bare /= on_socket;
    printf("%.1f %.1f\n", library, bare);
    return 0;
}
