/*
 * Every function, as a program meets them: walk CFG UNREGISTERED OWNER SCREENSHOT [on]
 * With "on" the machine CFG is powered on and off, and so on; it boots something that never ends.
 */
#include "check.h"

/* An out-parameter with something to trample on at both sides. */
static void one_byte(VMControlServer *server, char *cfg)
{
    char around[3] = {'#', 'x', '#'};
    CHECK(VMControl_ServerIsRegistered(server, cfg, &around[1]) == 1);
    CHECK(around[0] == '#' && around[1] == 1 && around[2] == '#');
}

static void on_a_server(VMControlServer *server, VMControlConnectParams *params, char *cfg, char *unknown)
{
    char *msg = (char *)1, *text, **list, yes = 'x';
    int i, found = 0;

    CHECK(!VMControl_ServerIsConnected(server));
    CHECK(VMControl_ServerExec(server, "<exec/>") == NULL);
    CHECK(VMControl_ServerGetLastError(server, &msg) == VM_E_NOTCONNECTED);
    CHECK(strcmp(msg, "Not connected") == 0);
    free(msg);
    CHECK(VMControl_ServerConnectEx(server, params) == 1);
    msg = (char *)1;
    CHECK(VMControl_ServerGetLastError(server, &msg) == 0 && msg == NULL);
    CHECK(VMControl_ServerIsConnected(server));
    CHECK(VMControl_ServerConnectEx(server, params) == 0);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_ALREADYCONNECTED);

    text = VMControl_ServerExec(server, "<exec><op>inc</op><in><number>42</number></in></exec>");
    CHECK(text && strstr(text, "<number>43</number></out></exec>"));
    free(text);
    /* A reply that reports failure is a reply. */
    text = VMControl_ServerExec(server, "<exec><op>no such</op></exec>");
    CHECK(text && strstr(text, "<returncode>0</returncode>"));
    CHECK(VMControl_ServerGetLastError(server, NULL) == 0);
    free(text);
    /* What is not well-formed is answered too; the connection is made anew for the next. */
    text = VMControl_ServerExec(server, "<exec><op>inc</oq></exec>");
    CHECK(text && strstr(text, "malformed request"));
    free(text);
    CHECK(VMControl_ServerExec(server, "<exec><op>inc") == NULL);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_INVALIDARGS);
    CHECK(VMControl_ServerExec(server, "\xff") == NULL);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_INVALIDARGS);
    CHECK(VMControl_ServerExec(server, NULL) == NULL);

    if (!VMControl_ServerIsConnected(server))
        CHECK(VMControl_ServerConnectEx(server, params) == 1);
    CHECK(VMControlExt_ServerRegister(server, cfg) == 1);
    CHECK(VMControlExt_ServerRegister(server, cfg) == 0);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_VMEXISTS);
    CHECK(VMControlExt_ServerUnregister(server, unknown) == 0);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_NOSUCHVM);
    CHECK(VMControlExt_ServerSetResource(server, "system.mem.size", "1") == 0);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_NOTSUPPORTED);
    one_byte(server, cfg);
    CHECK(VMControl_ServerIsRegistered(server, unknown, &yes) == 1 && yes == 0);
    list = VMControl_ServerEnumerate(server);
    CHECK(list != NULL);
    for (i = 0; list[i]; i++) {
        found += strcmp(list[i], cfg) == 0;
        free(list[i]);
    }
    free(list);
    CHECK(found == 1);
    text = VMControl_ServerGetResource(server, "system.cpu.number");
    CHECK(text && atoi(text) > 0);
    free(text);
    CHECK(VMControl_ServerGetResource(server, "no.such") == NULL);
    CHECK(VMControl_ServerGetLastError(server, NULL) == VM_E_NOPROPERTY);
    CHECK(VMControlExt_ServerSetTimeout(server, 2, 1000) == 0);
    CHECK(VMControlExt_ServerSetTimeout(server, VM_TIMEOUT_ID, 60000) == 1);
    text = VMControlExt_GetVersion();
    CHECK(text && strchr(text, '.'));
    free(text);
}

static void off(VMControlVM *vm, char *cfg, char *owner)
{
    int number = -1, id, suggested;
    unsigned int count = 99;
    char *text, **choices, yes = 'x';

    OK(vm, VMControl_VMGetExecutionState(vm, &number));
    CHECK(number == VM_EXECUTION_STATE_OFF);
    OK(vm, VMControl_VMGetProductInfo(vm, VM_PRODINFO_PRODUCT, &number));
    CHECK(number == VM_PRODUCT_SERVER);
    OK(vm, VMControl_VMGetProductInfo(vm, VM_PRODINFO_PLATFORM, &number));
    CHECK(number == VM_PLATFORM_LINUX);
    OK(vm, VMControl_VMGetProductInfo(vm, VM_PRODINFO_BUILD, &number));
    CHECK(number == 44356);
    OK(vm, VMControl_VMGetProductInfo(vm, VM_PRODINFO_VERSION_MAJOR, &number));
    CHECK(number == 1);
    OK(vm, VMControl_VMGetProductInfo(vm, VM_PRODINFO_VERSION_MINOR, &number));
    CHECK(number == 0);
    OK(vm, VMControl_VMGetProductInfo(vm, VM_PRODINFO_VERSION_REVISION, &number));
    CHECK(number == 3);
    FAILS(vm, VM_E_INVALIDARGS, "7", VMControl_VMGetProductInfo(vm, 7, &number));
    OK(vm, VMControl_VMGetCapabilities(vm, &count));
    CHECK(count == (VM_PERM_READ | VM_PERM_WRITE | VM_PERM_EXECUTE));

    /* Off: these read 0 with success. */
    count = 99;
    OK(vm, VMControl_VMGetUptime(vm, &count));
    CHECK(count == 0);
    count = 99;
    OK(vm, VMControl_VMGetHeartbeat(vm, &count));
    CHECK(count == 0);
    number = 99;
    OK(vm, VMControl_VMToolsLastActive(vm, &number));
    CHECK(number == 0);
    count = 99;
    OK(vm, VMControl_VMGetRemoteConnections(vm, &count));
    CHECK(count == 0);
    count = 99;
    OK(vm, VMControl_VMGetPid(vm, &count));
    CHECK(count == 0);
    OK(vm, VMControl_VMGetId(vm, &count));

    OK(vm, VMControl_VMGetRunAsUser(vm, &text));
    CHECK(strcmp(text, owner) == 0);
    free(text);
    TEXT(vm, cfg, VMControl_VMGetConfigFileName(vm));
    TEXT(vm, "16", VMControl_VMGetConfig(vm, "MemSize"));
    FAILS(vm, VM_E_NOPROPERTY, "no.such.key", VMControl_VMGetConfig(vm, "no.such.key"));
    FAILS(vm, VM_E_INVALIDARGS, "key", VMControl_VMGetConfig(vm, NULL));
    OK(vm, VMControl_VMSetConfig(vm, "annotation", "a \"b\" & <c> \xc3\xa4"));
    TEXT(vm, "a \"b\" & <c> \xc3\xa4", VMControl_VMGetConfig(vm, "annotation"));
    FAILS(vm, VM_E_NOTSUPPORTED, "", VMControl_VMGetResource(vm, "cpu.number"));
    FAILS(vm, VM_E_NOTSUPPORTED, "", VMControlExt_VMSetResource(vm, "cpu.number", "2"));
    OK(vm, VMControl_VMHasSnapshot(vm, &yes));
    CHECK(yes == 0);
    yes = 'x';
    OK(vm, VMControl_VMDeviceIsConnected(vm, "floppy0", &yes));
    CHECK(yes == 0);
    FAILS(vm, VM_E_NOPROPERTY, "", VMControl_VMDeviceIsConnected(vm, "floppy1", &yes));
    FAILS(vm, VM_E_BADSTATE, "(\"off\")", VMControl_VMStopOrReset(vm, 1, VM_POWEROP_MODE_HARD));
    FAILS(vm, VM_E_BADSTATE, "(\"off\")", VMControl_VMSuspendToDisk(vm, VM_POWEROP_MODE_TRYSOFT));
    FAILS(vm, VM_E_INVALIDARGS, "mode", VMControl_VMStart(vm, 9));
    OK(vm, VMControlExt_VMGetQuestion(vm, &id, &text, &choices, &suggested));
    CHECK(text == NULL && choices == NULL);
    FAILS(vm, VM_E_BADSTATE, "", VMControlExt_VMAnswerQuestion(vm, 1, 0));
}

static void on(VMControlVM *vm, char *picture)
{
    int number = -1;
    unsigned int count = 0, again = 0;
    char yes = 'x';
    unsigned char head[8];
    FILE *file;

    FAILS(vm, VM_E_BADSTATE, "", VMControl_MKSSaveScreenshot(vm, picture, "PNG"));
    OK(vm, VMControl_VMStart(vm, VM_POWEROP_MODE_TRYSOFT));
    OK(vm, VMControl_VMGetExecutionState(vm, &number));
    CHECK(number == VM_EXECUTION_STATE_ON);
    FAILS(vm, VM_E_BADSTATE,
          "Invalid operation for virtual machine's current state: The requested operation (\"start\") could not "
          "be completed because it conflicted with the state of the virtual machine (\"on\")",
          VMControl_VMStart(vm, VM_POWEROP_MODE_HARD));
    FAILS(vm, VM_E_BADSTATE, "Make sure the VMware Server Tools are running",
          VMControl_VMStopOrReset(vm, 1, VM_POWEROP_MODE_SOFT));
    OK(vm, VMControl_VMGetPid(vm, &count));
    CHECK(count > 1);
    OK(vm, VMControl_VMGetId(vm, &again));
    CHECK(again > 0);
    OK(vm, VMControl_VMGetUptime(vm, &count));
    OK(vm, VMControl_VMSetGuestInfo(vm, "a.b", "c"));
    TEXT(vm, "c", VMControl_VMGetGuestInfo(vm, "a.b"));
    FAILS(vm, VM_E_NOPROPERTY, "", VMControl_VMGetGuestInfo(vm, "ip"));
    OK(vm, VMControl_VMDeviceIsConnected(vm, "floppy0", &yes));
    CHECK(yes == 1);
    OK(vm, VMControl_VMDeviceDisconnect(vm, "floppy0"));
    OK(vm, VMControl_VMDeviceIsConnected(vm, "floppy0", &yes));
    CHECK(yes == 0);
    OK(vm, VMControl_VMDeviceConnect(vm, "floppy0"));
    FAILS(vm, VM_E_INVALIDARGS, "JPEG", VMControl_MKSSaveScreenshot(vm, picture, "JPEG"));
    OK(vm, VMControl_MKSSaveScreenshot(vm, picture, "PNG"));
    file = fopen(picture, "rb");
    CHECK(file && fread(head, 1, 8, file) == 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0);
    fclose(file);
    OK(vm, VMControl_VMCreateSnapshot(vm));
    OK(vm, VMControl_VMHasSnapshot(vm, &yes));
    CHECK(yes == 1);
    OK(vm, VMControl_VMRevertToSnapshot(vm));
    OK(vm, VMControl_VMRevertSnapshot(vm));
    OK(vm, VMControl_VMRemoveAllSnapshots(vm));
    OK(vm, VMControl_VMDeleteSnapshot(vm));
    OK(vm, VMControl_VMHasSnapshot(vm, &yes));
    CHECK(yes == 0);
    OK(vm, VMControl_VMGetExecutionState(vm, &number));
    CHECK(number == VM_EXECUTION_STATE_ON);
    OK(vm, VMControl_VMSuspendToDisk(vm, VM_POWEROP_MODE_HARD));
    OK(vm, VMControl_VMGetExecutionState(vm, &number));
    CHECK(number == VM_EXECUTION_STATE_SUSPENDED);
    OK(vm, VMControl_VMStart(vm, VM_POWEROP_MODE_HARD));
    OK(vm, VMControl_VMStopOrReset(vm, 0, VM_POWEROP_MODE_HARD));
    OK(vm, VMControl_VMStopOrReset(vm, 1, VM_POWEROP_MODE_TRYSOFT));
    OK(vm, VMControl_VMGetExecutionState(vm, &number));
    CHECK(number == VM_EXECUTION_STATE_OFF);
}

int main(int argc, char **argv)
{
    /* Any of these may be the program's own, released at once. */
    char *host = NULL;
    VMControlConnectParams *params;
    VMControlServer *server;
    VMControlVM *vm, *plain;
    char *cfg = argv[1], *unknown = argv[2], *owner = argv[3], *picture = argv[4];

    CHECK(argc >= 5);
    CHECK(VMControl_Init() && VMControl_VMInit());
    params = VMControl_ConnectParamsNew(host, 0, NULL, NULL);
    CHECK(params && params->hostname == NULL && params->port == 0);
    server = VMControl_ServerNewEx();
    vm = VMControl_VMNewEx();
    plain = VMControl_VMNewEx();
    CHECK(server && vm && plain);
    FAILS(vm, VM_E_NOTCONNECTED, "", VMControl_VMGetConfigFileName(vm));
    on_a_server(server, params, cfg, unknown);

    FAILS(vm, VM_E_NOSUCHVM, "is not registered.\nPlease register the config file on the server.  For example:\n"
          "vmware-cmd -s register \"", VMControl_VMConnectEx(vm, params, unknown, 0));
    CHECK(!VMControl_VMIsConnected(vm));
    OK(vm, VMControlExt_VMSetTimeout(vm, VM_TIMEOUT_ID, 60000));
    OK(vm, VMControl_VMConnectEx(vm, params, cfg, 1));
    CHECK(VMControl_VMIsConnected(vm));
    OK(plain, VMControl_VMConnectEx(plain, params, cfg, 0));
    FAILS(plain, VM_E_ALREADYCONNECTED, "", VMControl_VMConnectEx(plain, params, cfg, 0));
    FAILS(plain, VM_E_NOTCONNECTED, "mks", VMControl_MKSSaveScreenshot(plain, picture, "PNG"));
    /* What is connected needs them no more. */
    VMControl_ConnectParamsDestroy(params);
    off(vm, cfg, owner);
    if (argc > 5)
        on(vm, picture);
    CHECK(VMControlExt_ServerUnregister(server, cfg) == 1);
    VMControl_VMDisconnect(vm);
    CHECK(!VMControl_VMIsConnected(vm));
    FAILS(vm, VM_E_NOTCONNECTED, "", VMControl_VMHasSnapshot(vm, (char *)&argc));
    VMControl_VMDestroy(vm);
    /* Connected still. */
    VMControl_VMDestroy(plain);
    VMControl_ServerDisconnect(server);
    VMControl_ServerDestroy(server);
    puts("walked");
    return 0;
}
