/*
 * The snapshot call with rubbish where ESX's four other arguments would be, and as ESX's client makes it:
 * snapshot PORT CFG short|long DESCRIPTION
 * Declared by hand, as clients do that look names up: this file does not include the header.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *VMControl_ConnectParamsNew(const char *, int, const char *, const char *);
void VMControl_ConnectParamsDestroy(void *);
void *VMControl_VMNewEx(void);
char VMControl_VMConnectEx(void *, void *, const char *, char);
int VMControl_VMGetLastError(void *, char **);
void VMControl_VMDestroy(void *);
char VMControl_VMCreateSnapshot(void *, intptr_t, intptr_t, intptr_t, intptr_t);

int main(int argc, char **argv)
{
    char host[] = "127.0.0.1";
    void *params, *vm = VMControl_VMNewEx();
    char ok, *msg;

    if (argc != 5)
        return 2;
    params = VMControl_ConnectParamsNew(host, atoi(argv[1]), "user", "pass");
    if (!VMControl_VMConnectEx(vm, params, argv[2], 0)) {
        VMControl_VMGetLastError(vm, &msg);
        fprintf(stderr, "%s\n", msg);
        return 3;
    }
    if (strcmp(argv[3], "short") == 0)
        ok = VMControl_VMCreateSnapshot(vm, 0x5a5a5a5a, -1, 0x7fffffff, (intptr_t)0xdeadbeefdeadULL);
    else
        ok = VMControl_VMCreateSnapshot(vm, (intptr_t)"name & more", (intptr_t)argv[4], 0x100, 0x101);
    VMControl_VMGetLastError(vm, &msg);
    printf("%d %s\n", ok, msg ? msg : "-");
    free(msg);
    VMControl_VMDestroy(vm);
    VMControl_ConnectParamsDestroy(params);
    return 0;
}
