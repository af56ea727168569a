/*
 * vmcontrol.h: ask a VMware Server for things, from C.
 *
 * This is the header of vmserverd's libvmcontrol. Functions and constants are those that programs for
 * VMware's scripting interface use; what begins with VMControlExt_ is this project's own.
 *
 * Rules that hold for every function
 *
 *   result    Bool is one byte. 0 or NULL means failure; the reason is asked of the same object, with
 *             its own GetLastError. There is no global error.
 *   memory    Every string that is returned or written through a pointer, and the array of
 *             ServerEnumerate, is released by the caller with free(). Objects and parameters have
 *             their own Destroy.
 *   strings   Both ways UTF-8 and ended by a NUL. Strings that are passed in are copied.
 *   threads   Any function may be called from any thread. Calls on one object wait for each other,
 *             Destroy among them; calls on different objects do not.
 *   time      A call ends after two minutes at most (-7); VMControlExt_*SetTimeout changes that.
 *
 * See vmcontrol(3). Link with -lvmcontrol, or load libvmcontrol.so.1 with dlopen.
 */
#ifndef VMCONTROL_H
#define VMCONTROL_H

#ifdef __cplusplus
extern "C" {
#endif

/* One byte. Define VMCONTROL_NO_BOOL before including when another header has a Bool of its own. */
typedef char VMControlBool;
#if !defined(VMCONTROL_NO_BOOL) && !defined(Bool)
typedef VMControlBool Bool;
#endif

/* A server, and a machine. */
typedef struct VMControlServer VMControlServer;
typedef struct VMControlVM VMControlVM;

/* Where to connect, and as whom. The strings belong to the C heap: a field may be replaced by another
 * such string, after free() of the old one. All of them may be NULL, and port may be 0. */
typedef struct VMControlConnectParams {
    const char *hostname; /* NULL or "": this machine */
    int port;             /* 0: authd.client.port of /etc/vmware/config, else 902 */
    const char *username; /* NULL or "": the owner of this process, on this machine only */
    char *password;
} VMControlConnectParams;

/* ---- Errors ------------------------------------------------------------------------------------ */

#define VM_E_SUCCESS 0
#define VM_E_NOMEM (-1)
#define VM_E_NETFAIL (-2)
#define VM_E_INVALIDARGS (-3)
#define VM_E_NOACCESS (-4)
#define VM_E_NOTCONNECTED (-5)
#define VM_E_BADVERSION (-6)
#define VM_E_TIMEOUT (-7)
#define VM_E_BADSTATE (-8)
#define VM_E_NOEXECVMAUTHD (-9)
#define VM_E_NOPROPERTY (-10)
#define VM_E_NOSUCHVM (-11)
#define VM_E_ALREADYCONNECTED (-12)
#define VM_E_DISCONNECT (-13)
#define VM_E_BADRESPONSE (-14)
#define VM_E_GARBAGE (-15)
#define VM_E_NEEDINPUT (-16)
#define VM_E_NOTSUPPORTED (-17)
#define VM_E_INVALIDVM (-18)
#define VM_E_VMINITFAILED (-19)
#define VM_E_VMEXISTS (-20)
#define VM_E_VMBUSY (-21)
#define VM_E_INSUFFICIENT_RESOURCES (-22)
#define VM_E_PROXYFAIL (-23)
#define VM_E_UNSPECIFIED (-999)

/* ---- Numbers ----------------------------------------------------------------------------------- */

/* VMControl_VMGetExecutionState */
#define VM_EXECUTION_STATE_ON 1
#define VM_EXECUTION_STATE_OFF 2
#define VM_EXECUTION_STATE_SUSPENDED 3
#define VM_EXECUTION_STATE_STUCK 4 /* waits for an answer: VMControlExt_VMGetQuestion */
#define VM_EXECUTION_STATE_UNKNOWN 5

/* mode of VMControl_VMStart, VMStopOrReset, VMSuspendToDisk */
#define VM_POWEROP_MODE_HARD 1    /* at once */
#define VM_POWEROP_MODE_SOFT 2    /* ask the guest; fails without Tools */
#define VM_POWEROP_MODE_TRYSOFT 3 /* ask the guest, else at once */

/* type of VMControl_VMGetProductInfo */
#define VM_PRODINFO_PRODUCT 1
#define VM_PRODINFO_PLATFORM 2
#define VM_PRODINFO_BUILD 3
#define VM_PRODINFO_VERSION_MAJOR 4
#define VM_PRODINFO_VERSION_MINOR 5
#define VM_PRODINFO_VERSION_REVISION 6

/* what it answers to VM_PRODINFO_PRODUCT */
#define VM_PRODUCT_WS 1
#define VM_PRODUCT_GSX 2
#define VM_PRODUCT_ESX 3
#define VM_PRODUCT_SERVER 4
#define VM_PRODUCT_UNKNOWN 5

/* what it answers to VM_PRODINFO_PLATFORM */
#define VM_PLATFORM_WINDOWS 1
#define VM_PLATFORM_LINUX 2
#define VM_PLATFORM_VMNIX 3
#define VM_PLATFORM_UNKNOWN 4

/* VMControl_VMGetCapabilities: a sum of these */
#define VM_PERM_READ 4
#define VM_PERM_WRITE 2
#define VM_PERM_EXECUTE 1

/* id of VMControlExt_ServerSetTimeout, VMSetTimeout */
#define VM_TIMEOUT_ID 1

/* ---- Start-up and parameters ------------------------------------------------------------------- */

/* Once after loading; each returns other than 0. */
VMControlBool VMControl_Init(void);
char VMControl_VMInit(void);

/* Copies the strings. One set serves many connects, and may be destroyed before what it connected. */
VMControlConnectParams *VMControl_ConnectParamsNew(const char *host, int port, const char *user,
                                                   const char *pass);
void VMControl_ConnectParamsDestroy(VMControlConnectParams *params);

/* ---- A server ---------------------------------------------------------------------------------- */

VMControlServer *VMControl_ServerNewEx(void);
void VMControl_ServerDestroy(VMControlServer *server); /* connected or not */
VMControlBool VMControl_ServerConnectEx(VMControlServer *server, VMControlConnectParams *params);
void VMControl_ServerDisconnect(VMControlServer *server);
VMControlBool VMControl_ServerIsConnected(VMControlServer *server);

/* Paths of all machines, NULL behind the last. Release each and the array. NULL is a failure. */
char **VMControl_ServerEnumerate(VMControlServer *server);
VMControlBool VMControl_ServerIsRegistered(VMControlServer *server, const char *cfg, VMControlBool *out);

/* A figure of the host, such as "system.mem.avail". */
char *VMControl_ServerGetResource(VMControlServer *server, char *key);

/* Sends one <exec> document as it is and returns the reply as it is, also when the reply reports
 * failure. NULL only when there was no reply. */
char *VMControl_ServerExec(VMControlServer *server, const char *xml);

/* Number and text of the last call's failure; 0 and NULL after one that succeeded. */
int VMControl_ServerGetLastError(VMControlServer *server, char **msg);

/* ---- A machine --------------------------------------------------------------------------------- */

VMControlVM *VMControl_VMNewEx(void);
void VMControl_VMDestroy(VMControlVM *vm); /* connected or not */

/* cfg is the path of the .vmx on the server. mks other than 0 asks for the console too, for
 * screenshots. Registration and rights are checked here. */
VMControlBool VMControl_VMConnectEx(VMControlVM *vm, VMControlConnectParams *params, const char *cfg,
                                    VMControlBool mks);
void VMControl_VMDisconnect(VMControlVM *vm);
VMControlBool VMControl_VMIsConnected(VMControlVM *vm);
int VMControl_VMGetLastError(VMControlVM *vm, char **msg);

VMControlBool VMControl_VMGetExecutionState(VMControlVM *vm, int *state);
VMControlBool VMControl_VMGetProductInfo(VMControlVM *vm, int type, int *value);
VMControlBool VMControl_VMGetCapabilities(VMControlVM *vm, unsigned int *bits);

/* 0 for a machine that is not on. */
VMControlBool VMControl_VMGetUptime(VMControlVM *vm, unsigned int *seconds);
VMControlBool VMControl_VMGetHeartbeat(VMControlVM *vm, unsigned int *count);
VMControlBool VMControl_VMToolsLastActive(VMControlVM *vm, int *value); /* 0 none, 1 normal, 5, 100 */
VMControlBool VMControl_VMGetRemoteConnections(VMControlVM *vm, unsigned int *count);
VMControlBool VMControl_VMGetPid(VMControlVM *vm, unsigned int *pid);
VMControlBool VMControl_VMGetId(VMControlVM *vm, unsigned int *id);

VMControlBool VMControl_VMGetRunAsUser(VMControlVM *vm, char **user);
char *VMControl_VMGetConfigFileName(VMControlVM *vm);
char *VMControl_VMGetConfig(VMControlVM *vm, char *key);
VMControlBool VMControl_VMSetConfig(VMControlVM *vm, char *key, char *value);
char *VMControl_VMGetGuestInfo(VMControlVM *vm, char *key); /* without "guestinfo." */
VMControlBool VMControl_VMSetGuestInfo(VMControlVM *vm, char *key, char *value);
char *VMControl_VMGetResource(VMControlVM *vm, char *key);

VMControlBool VMControl_VMStart(VMControlVM *vm, int mode);
VMControlBool VMControl_VMStopOrReset(VMControlVM *vm, VMControlBool stop, int mode); /* 0: reset */
VMControlBool VMControl_VMSuspendToDisk(VMControlVM *vm, int mode);

VMControlBool VMControl_VMHasSnapshot(VMControlVM *vm, VMControlBool *out);
/* Where VM_PRODINFO_PRODUCT says VM_PRODUCT_ESX, and only there, four more arguments are read: const char
 * *name, const char *descr, Bool quiesce, Bool memory. This project's server is never that product. */
VMControlBool VMControl_VMCreateSnapshot(VMControlVM *vm);
VMControlBool VMControl_VMRevertToSnapshot(VMControlVM *vm);
VMControlBool VMControl_VMRemoveAllSnapshots(VMControlVM *vm);
/* The older names of these two. */
VMControlBool VMControl_VMRevertSnapshot(VMControlVM *vm);
VMControlBool VMControl_VMDeleteSnapshot(VMControlVM *vm);

/* dev as in the .vmx: "floppy0", "ide1:0", "ethernet0" */
VMControlBool VMControl_VMDeviceConnect(VMControlVM *vm, const char *dev);
VMControlBool VMControl_VMDeviceDisconnect(VMControlVM *vm, const char *dev);
VMControlBool VMControl_VMDeviceIsConnected(VMControlVM *vm, const char *dev, VMControlBool *out);

/* Writes the file on this side. format is "PNG". Needs a connect with mks and a machine that is on. */
VMControlBool VMControl_MKSSaveScreenshot(VMControlVM *vm, const char *path, const char *format);

/* ---- This project's own ------------------------------------------------------------------------ */

/* The version of this library. */
char *VMControlExt_GetVersion(void);

/* Longest time of one call in milliseconds, also of the next connect. id is VM_TIMEOUT_ID. */
VMControlBool VMControlExt_ServerSetTimeout(VMControlServer *server, int id, unsigned int milliseconds);
VMControlBool VMControlExt_VMSetTimeout(VMControlVM *vm, int id, unsigned int milliseconds);

VMControlBool VMControlExt_ServerRegister(VMControlServer *server, const char *cfg);
VMControlBool VMControlExt_ServerUnregister(VMControlServer *server, const char *cfg);
VMControlBool VMControlExt_ServerSetResource(VMControlServer *server, const char *key, const char *value);
VMControlBool VMControlExt_VMSetResource(VMControlVM *vm, const char *key, const char *value);

/* What a machine wants to know. Success and NULL in *text and *choices: nothing. Otherwise release the
 * text, each choice and the array of choices, NULL behind the last. All four are written in any case. */
VMControlBool VMControlExt_VMGetQuestion(VMControlVM *vm, int *id, char **text, char ***choices,
                                         int *default_choice);
/* choice counts from 0. */
VMControlBool VMControlExt_VMAnswerQuestion(VMControlVM *vm, int id, int choice);

#ifdef __cplusplus
}
#endif

#endif /* VMCONTROL_H */
