import java.nio.file.Files;
import java.nio.file.Path;
import org.hyperic.sigar.vmware.ConnectParams;
import org.hyperic.sigar.vmware.VM;
import org.hyperic.sigar.vmware.VMControlLibrary;
import org.hyperic.sigar.vmware.VMwareException;
import org.hyperic.sigar.vmware.VMwareServer;

/** Every entry of the three classes, on a registered machine that is off: Drive CFG UNKNOWN OWNER PICTURE [on] */
public final class Drive {
    interface Call {
        void run() throws Exception;
    }

    static void check(boolean yes, String what) {
        if (!yes) {
            throw new AssertionError(what);
        }
    }

    static void same(Object expected, Object found) {
        check(expected.equals(found), "expected " + expected + ", found " + found);
    }

    /** The exception's text is the library's, whole. */
    static void fails(String text, Call call) throws Exception {
        try {
            call.run();
        } catch (VMwareException error) {
            same(text, error.getMessage());
            return;
        }
        throw new AssertionError("no exception: " + text);
    }

    static final String STATE = "Invalid operation for virtual machine's current state: ";

    static String conflict(String operation, String state) {
        return STATE + "The requested operation (\"" + operation + "\") could not be completed because it conflicted "
            + "with the state of the virtual machine (\"" + state + "\") at the time the request was received.  This "
            + "error often occurs because the state of the virtual machine changed before it received the request.";
    }

    public static void main(String[] arguments) throws Exception {
        String config = arguments[0], unknown = arguments[1], owner = arguments[2], picture = arguments[3];
        check(VMControlLibrary.isLoaded(), "loaded");
        ConnectParams params = new ConnectParams(null, 0, null, null);
        server(params, config, unknown);

        VM vm = new VM();
        fails("Not connected", () -> vm.getExecutionState());
        fails("No such virtual machine: The config file " + unknown + " is not registered.\n"
            + "Please register the config file on the server.  For example:\nvmware-cmd -s register \"" + unknown + "\"",
            () -> vm.connect(params, unknown));
        check(!vm.isConnected(), "not connected");
        vm.connect(params, config, true);
        check(vm.isConnected(), "connected");
        fails("Already connected", () -> vm.connect(params, config));
        off(vm, owner);
        if (arguments.length > 4) {
            on(vm, picture);
        }

        // The order of a product query by Hyperic HQ; parameters go before the machine is disconnected.
        VMwareServer server = new VMwareServer();
        check(server.connect(params), "connected");
        VM second = new VM();
        second.connect(params, (String) server.getRegisteredVmNames().get(0));
        params.dispose();
        for (int type : new int[] {1, 4, 5, 6, 3}) {
            second.getProductInfo(type);
        }
        second.disconnect();
        second.dispose();
        server.disconnect();
        server.dispose();
        vm.dispose();

        // Left to the finalizer's thread, connected.
        ConnectParams again = new ConnectParams();
        for (int i = 0; i < 8; i++) {
            new VM().connect(again, config);
        }
        System.gc();
        System.runFinalization();
        System.out.println("driven");
    }

    static void server(ConnectParams params, String config, String unknown) throws Exception {
        VMwareServer server = new VMwareServer();
        check(!server.isConnected(), "not connected");
        // No exception: these classes take no list for an empty one.
        check(server.getRegisteredVmNames().isEmpty(), "no names");
        fails("Not connected", () -> server.getResource("system.mem.size"));
        check(server.connect(params), "connected");
        check(server.isConnected(), "connected");
        fails("Already connected", () -> server.connect(params));
        check(server.isRegistered(config), "registered");
        check(!server.isRegistered(unknown), "not registered");
        check(server.getRegisteredVmNames().contains(config), "listed");
        check(Integer.parseInt(server.getResource("system.cpu.number")) > 0, "processors");
        fails("No such property: no.such", () -> server.getResource("no.such"));
        check(server.exec("<exec><op>inc</op><in><number>42</number></in></exec>").contains("<number>43</number>"), "inc");
        check(server.exec("<exec><op>no such</op></exec>").contains("<returncode>0</returncode>"), "a reply");
        server.disconnect();
        check(!server.isConnected(), "disconnected");
        server.dispose();
    }

    static void off(VM vm, String owner) throws Exception {
        check(vm.isOff() && !vm.isOn() && !vm.isSuspended() && !vm.isStuck(), "off");
        same(VM.PRODUCT_SERVER, vm.getProductInfo(VM.PRODINFO_PRODUCT));
        same(VM.PLATFORM_LINUX, vm.getProductInfo(VM.PRODINFO_PLATFORM));
        same("1.0", vm.getVersion());
        check(vm.getFullVersion().startsWith("1.0.3"), vm.getFullVersion());
        check(!vm.isESX(), "no ESX");
        vm.isGSX();
        vm.getProductName();
        vm.getProductPlatform();
        same(VM.PERM_READ | VM.PERM_WRITE | VM.PERM_EXECUTE, vm.getPermissions());
        same("rwx", vm.getPermissionsString());
        check(vm.canRead() && vm.canWrite() && vm.canExecute(), "rights");
        same(0, vm.getUptime());
        same(0, vm.getHeartbeat());
        same(0, vm.getToolsLastActive());
        same(0, vm.getRemoteConnections());
        same(0L, vm.getPid());
        vm.getId();
        same(owner, vm.getRunAsUser());
        same("java", vm.getDisplayName());
        same("other", vm.getGuestOS());
        same("16", vm.getMemSize());
        same("16", vm.getConfig("MEMSIZE"));
        fails("No such property: no.such", () -> vm.getConfig("no.such"));
        try {
            vm.getResource("cpu.number");
            throw new AssertionError("a resource");
        } catch (VMwareException error) {
            check(error.getMessage().startsWith("Not supported"), error.getMessage());
        }
        check(!vm.hasSnapshot(), "no snapshot");
        check(!vm.deviceIsConnected("floppy0"), "unplugged");
        fails(conflict("stop", "off"), () -> vm.stop(VM.POWEROP_MODE_HARD));
        fails(conflict("reset", "off"), () -> vm.reset());
        fails(conflict("suspend", "off"), () -> vm.suspend());
    }

    static void on(VM vm, String picture) throws Exception {
        vm.start();
        check(vm.isOn(), "on");
        fails(conflict("start", "on"), () -> vm.start(VM.POWEROP_MODE_SOFT));
        fails(STATE + "Make sure the VMware Server Tools are running", () -> vm.stop(VM.POWEROP_MODE_SOFT));
        check(vm.getPid() > 1, "a process");
        check(vm.getId() > 0, "a number");
        vm.setGuestInfo("a.b", "c");
        same("c", vm.getGuestInfo("a.b"));
        check(vm.deviceIsConnected("floppy0"), "plugged in");
        vm.deviceDisconnect("floppy0");
        check(!vm.deviceIsConnected("floppy0"), "unplugged");
        vm.deviceConnect("floppy0");
        vm.saveScreenshot(picture);
        check(Files.readAllBytes(Path.of(picture))[1] == 'P', "a picture");
        // One argument arrives, because the product is not ESX; four registers hold what they hold.
        vm.createSnapshot("name", "description", true, true);
        check(vm.hasSnapshot(), "a snapshot");
        vm.revertToSnapshot();
        vm.removeAllSnapshots();
        check(!vm.hasSnapshot(), "no snapshot");
        vm.suspend(VM.POWEROP_MODE_HARD);
        check(vm.isSuspended(), "suspended");
        vm.resume();
        vm.reset(VM.POWEROP_MODE_HARD);
        vm.stop(VM.POWEROP_MODE_TRYSOFT);
        check(vm.isOff(), "off again");
    }
}
