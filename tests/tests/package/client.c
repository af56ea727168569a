/* Keeps one connection to a machine, and says its state for every line that it reads. */
#include <stdio.h>
#include <vmcontrol.h>

int main(int argc, char **argv)
{
    VMControlConnectParams *params = VMControl_ConnectParamsNew(NULL, 0, NULL, NULL);
    VMControlVM *vm = VMControl_VMNewEx();
    char line[16];
    char *text = NULL;
    int state = 0;

    if (argc != 2 || !VMControl_VMInit() || !VMControl_VMConnectEx(vm, params, argv[1], 0)) {
        fprintf(stderr, "no connection: %d\n", VMControl_VMGetLastError(vm, &text));
        return 1;
    }
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (VMControl_VMGetExecutionState(vm, &state))
            printf("state %d\n", state);
        else
            printf("error %d: %s\n", VMControl_VMGetLastError(vm, &text), text);
        fflush(stdout);
    }
    VMControl_VMDestroy(vm);
    VMControl_ConnectParamsDestroy(params);
    return 0;
}
