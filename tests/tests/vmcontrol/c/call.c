/*
 * One server, some calls: call HOST PORT USER PASSWORD MILLISECONDS COUNT
 * Prints a line per call, the connect first: number and text. "-" stands for NULL.
 */
#include "check.h"

static char *argument(char *text)
{
    return strcmp(text, "-") == 0 ? NULL : text;
}

int main(int argc, char **argv)
{
    VMControlConnectParams *params;
    VMControlServer *server = VMControl_ServerNewEx();
    int i;
    char *msg;

    CHECK(argc == 7);
    params = VMControl_ConnectParamsNew(argument(argv[1]), atoi(argv[2]), argument(argv[3]), argument(argv[4]));
    CHECK(VMControlExt_ServerSetTimeout(server, VM_TIMEOUT_ID, (unsigned int)atoi(argv[5])));
    if (VMControl_ServerConnectEx(server, params)) {
        puts("0 connected");
        for (i = 0; i < atoi(argv[6]); i++) {
            char *text = VMControl_ServerExec(server, "<exec><op>inc</op><in><number>42</number></in></exec>");
            int number = VMControl_ServerGetLastError(server, &msg);
            printf("%d %s\n", number, text ? text : msg);
            CHECK((text == NULL) == (number != 0));
            free(text);
            free(msg);
        }
    } else {
        int number = VMControl_ServerGetLastError(server, &msg);
        printf("%d %s\n", number, msg);
        free(msg);
    }
    VMControl_ServerDestroy(server);
    VMControl_ConnectParamsDestroy(params);
    return 0;
}
