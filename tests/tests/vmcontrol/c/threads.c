/*
 * Many threads, on objects of their own and on shared ones: threads CFG COUNT
 */
#include <pthread.h>

#include "check.h"

static VMControlConnectParams *params;
static VMControlServer *shared_server;
static VMControlVM *shared_vm;
static char *cfg;

/* Destroys in a thread that has made nothing. */
static void *destroy(void *vm)
{
    VMControl_VMDestroy((VMControlVM *)vm);
    return NULL;
}

static void *work(void *unused)
{
    int round, state;
    (void)unused;
    for (round = 0; round < 2; round++) {
        VMControlVM *vm = VMControl_VMNewEx();
        VMControlServer *server = VMControl_ServerNewEx();
        char *text, **list, **at;
        pthread_t finalizer;

        OK(vm, VMControl_VMConnectEx(vm, params, cfg, 0));
        OK(vm, VMControl_VMGetExecutionState(vm, &state));
        CHECK(state == VM_EXECUTION_STATE_OFF);
        CHECK(VMControl_ServerConnectEx(server, params) == 1);
        text = VMControl_ServerExec(server, "<exec><op>inc</op><in><number>1</number></in></exec>");
        CHECK(text && strstr(text, "<number>2</number>"));
        free(text);

        CHECK(VMControl_VMGetExecutionState(shared_vm, &state) && state == VM_EXECUTION_STATE_OFF);
        text = VMControl_VMGetConfig(shared_vm, "memsize");
        CHECK(text && strcmp(text, "16") == 0);
        free(text);
        CHECK(VMControl_VMGetConfig(shared_vm, "no.such") == NULL);
        /* Whose error this is depends on who was last; it is a text or nothing. */
        VMControl_VMGetLastError(shared_vm, &text);
        free(text);
        list = VMControl_ServerEnumerate(shared_server);
        CHECK(list && list[0]);
        for (at = list; *at; at++)
            free(*at);
        free(list);

        CHECK(pthread_create(&finalizer, NULL, destroy, vm) == 0);
        VMControl_ServerDestroy(server);
        CHECK(pthread_join(finalizer, NULL) == 0);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t all[256];
    int i, count;

    CHECK(argc == 3);
    cfg = argv[1];
    count = atoi(argv[2]);
    CHECK(count > 0 && count <= 256);
    params = VMControl_ConnectParamsNew(NULL, 0, NULL, NULL);
    shared_server = VMControl_ServerNewEx();
    shared_vm = VMControl_VMNewEx();
    CHECK(VMControl_ServerConnectEx(shared_server, params) == 1);
    OK(shared_vm, VMControl_VMConnectEx(shared_vm, params, cfg, 0));
    for (i = 0; i < count; i++)
        CHECK(pthread_create(&all[i], NULL, work, NULL) == 0);
    for (i = 0; i < count; i++)
        CHECK(pthread_join(all[i], NULL) == 0);
    VMControl_VMDestroy(shared_vm);
    VMControl_ServerDestroy(shared_server);
    VMControl_ConnectParamsDestroy(params);
    puts("joined");
    return 0;
}
