/*
 * Asks the server of this machine what 42 + 1 is: the first exec of the API page, from C.
 *
 *   cc inc.c -o inc $(pkg-config --cflags --libs vmcontrol)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmcontrol.h>

int main(void)
{
    VMControlConnectParams *params;
    VMControlServer *server;
    char *reply, *number, *why = NULL;
    int status = EXIT_FAILURE;

    if (!VMControl_Init() || !VMControl_VMInit())
        return EXIT_FAILURE;
    /* No host, no user, no password: this machine, as the owner of this process. */
    params = VMControl_ConnectParamsNew(NULL, 0, NULL, NULL);
    server = VMControl_ServerNewEx();
    if (VMControl_ServerConnectEx(server, params)) {
        reply = VMControl_ServerExec(server, "<exec><op>inc</op><in><number>42</number></in></exec>");
        number = reply ? strstr(reply, "<number>") : NULL;
        if (number) {
            printf("42 + 1 = %d\n", atoi(number + strlen("<number>")));
            status = EXIT_SUCCESS;
        }
        free(reply);
    }
    if (status != EXIT_SUCCESS) {
        /* The text is ours to release, whatever the number. */
        int code = VMControl_ServerGetLastError(server, &why);
        fprintf(stderr, "VMControl error %d: %s\n", code, why ? why : "no number in the reply");
        free(why);
    }
    VMControl_ServerDestroy(server);
    VMControl_ConnectParamsDestroy(params);
    return status;
}
