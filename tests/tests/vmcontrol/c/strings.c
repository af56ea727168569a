/*
 * Strings that nobody should send, through every parameter that takes one: strings CFG
 * What CVE-2008-2100 was about. Only the library's own arguments are odd; it has to stay whole and say why it
 * refuses, whatever the server makes of what gets through.
 */
#include "check.h"

static VMControlServer *server;
static VMControlVM *vm;
static VMControlConnectParams *params;
static char *cfg;

/* A call on the server object has failed or not; in both cases its last error can be asked for. */
static void ask_server(void)
{
    char *msg = (char *)1;
    int number = VMControl_ServerGetLastError(server, &msg);
    CHECK(number <= 0 && number >= -999);
    CHECK(number == 0 || (msg && msg[0]));
    free(msg);
    if (!VMControl_ServerIsConnected(server))
        CHECK(VMControl_ServerConnectEx(server, params) == 1);
}

static void ask_vm(void)
{
    char *msg = (char *)1;
    int number = VMControl_VMGetLastError(vm, &msg);
    CHECK(number <= 0 && number >= -999);
    CHECK(number == 0 || (msg && msg[0]));
    free(msg);
    if (!VMControl_VMIsConnected(vm))
        CHECK(VMControl_VMConnectEx(vm, params, cfg, 1) == 1);
}

#define SERVER(call) do { call; ask_server(); } while (0)
#define VM(call) do { call; ask_vm(); } while (0)

static void through_everything(char *odd)
{
    char bit;
    VMControlVM *other = VMControl_VMNewEx();
    VMControlConnectParams *strange = VMControl_ConnectParamsNew(odd, 1, odd, odd);
    VMControlServer *elsewhere = VMControl_ServerNewEx();

    CHECK(VMControlExt_ServerSetTimeout(elsewhere, VM_TIMEOUT_ID, 2000));
    if (strange) {
        CHECK(VMControl_ServerConnectEx(elsewhere, strange) == 0);
        CHECK(VMControl_ServerGetLastError(elsewhere, NULL) < 0);
        VMControl_ConnectParamsDestroy(strange);
    }
    VMControl_ServerDestroy(elsewhere);

    CHECK(VMControl_VMConnectEx(other, params, odd, 0) == 0);
    CHECK(VMControl_VMGetLastError(other, NULL) < 0);
    VMControl_VMDestroy(other);

    SERVER(free(VMControl_ServerExec(server, odd)));
    SERVER(free(VMControl_ServerGetResource(server, odd)));
    SERVER(VMControl_ServerIsRegistered(server, odd, &bit));
    SERVER(VMControlExt_ServerRegister(server, odd));
    SERVER(VMControlExt_ServerUnregister(server, odd));
    SERVER(VMControlExt_ServerSetResource(server, odd, odd));

    VM(free(VMControl_VMGetConfig(vm, odd)));
    VM(VMControl_VMSetConfig(vm, odd, "x"));
    VM(VMControl_VMSetConfig(vm, "annotation", odd));
    VM(free(VMControl_VMGetGuestInfo(vm, odd)));
    VM(VMControl_VMSetGuestInfo(vm, odd, odd));
    VM(free(VMControl_VMGetResource(vm, odd)));
    VM(VMControlExt_VMSetResource(vm, odd, odd));
    VM(VMControl_VMDeviceConnect(vm, odd));
    VM(VMControl_VMDeviceDisconnect(vm, odd));
    VM(VMControl_VMDeviceIsConnected(vm, odd, &bit));
    VM(VMControl_MKSSaveScreenshot(vm, odd, "PNG"));
    VM(VMControl_MKSSaveScreenshot(vm, "/dev/null", odd));
}

static char *filled(size_t length, const char *with)
{
    char *text = malloc(length + 1);
    size_t i, size = strlen(with);

    CHECK(text);
    for (i = 0; i < length; i++)
        text[i] = with[i % size];
    text[length] = '\0';
    return text;
}

int main(int argc, char **argv)
{
    static const char *const fillings[] = {"A", "%n%s", "\xff\xfe", "\xc3\xa4", "<a>&\"'", "/../", "\n\t\r\x01"};
    static const size_t lengths[] = {0, 1, 255, 256, 4096, 65536, 1 << 20};
    size_t i, j;

    CHECK(argc == 2);
    cfg = argv[1];
    server = VMControl_ServerNewEx();
    vm = VMControl_VMNewEx();
    params = VMControl_ConnectParamsNew(NULL, 0, NULL, NULL);
    CHECK(VMControl_ServerConnectEx(server, params) == 1);
    CHECK(VMControl_VMConnectEx(vm, params, cfg, 1) == 1);
    for (i = 0; i < sizeof fillings / sizeof fillings[0]; i++)
        for (j = 0; j < sizeof lengths / sizeof lengths[0]; j++) {
            char *odd = filled(lengths[j], fillings[i]);
            through_everything(odd);
            free(odd);
        }
    VMControl_VMDestroy(vm);
    VMControl_ServerDestroy(server);
    VMControl_ConnectParamsDestroy(params);
    puts("whole");
    return 0;
}
